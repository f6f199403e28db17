"""What many partners at once cost a real coordinator, and what it takes to serve them."""
