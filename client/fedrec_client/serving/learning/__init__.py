"""Learning beside serving: drift, replayed evaluation, which adapter serves, when a round is asked for, alerts."""
