"""What a partner's service remembers: items, users, events, shown lists, rules, keys. Everything here is private."""
