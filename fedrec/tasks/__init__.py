"""Heads for one task each over frozen inputs: click, classes, rating; trained together, with or without privacy."""
