"""What the coordinator remembers: tables, and one book for each of them."""
