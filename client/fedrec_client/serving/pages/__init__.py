"""Pages for people: the storefront at `/shop`, the operator's page at `/operate`."""
