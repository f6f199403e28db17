"""One file a change; a number never changes its meaning."""
