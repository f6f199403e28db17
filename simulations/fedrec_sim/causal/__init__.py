"""What would have been clicked had others been shown: estimates from logs, held against what was."""
