"""All that partners reach: the listener, its bounds, and the routes behind it."""
