"""A federation on one machine: the ladder of rows, the live view, the report, and the `fedrec` command."""
