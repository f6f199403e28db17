"""Search of a federated row's settings by Optuna, free on public data and charged on private ones."""
