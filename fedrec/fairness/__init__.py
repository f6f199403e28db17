"""Who is shown and who is served well: exposure of items' providers, quality by group of people, released under DP."""
