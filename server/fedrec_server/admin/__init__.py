"""Administration over HTTP on the loopback: an API, its pages, health and figures for monitoring."""
