"""Certificates, signing keys and credentials, and how each of them changes."""
