"""User-level differential privacy: one plan that mechanism, accounting and ledger all read."""
