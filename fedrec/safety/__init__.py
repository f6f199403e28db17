"""Which items a person should see before anybody is recommended them: blocklist, words, likeness to harmful themes."""
