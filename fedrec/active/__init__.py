"""Which items to ask a new user about, so that few answers say much."""
