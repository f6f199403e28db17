"""Committed adapter versions on disk."""
