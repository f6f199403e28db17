"""Sections of a simulation's TOML file that are long enough for a file of their own; `fedrec.config` has the whole."""
