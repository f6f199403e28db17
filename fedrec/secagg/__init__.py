"""Secure aggregation: partners and coordinator add up integer vectors of which nobody sees more than the sum."""
