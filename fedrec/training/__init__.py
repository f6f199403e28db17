"""What a partner computes on its own rows: plain or private steps on the adapter."""
