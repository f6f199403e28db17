"""Requests in words: what they ask of an item, made ones to learn from, and the model that reads them."""
