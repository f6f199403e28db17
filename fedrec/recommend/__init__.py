"""From an adapter and a history to a ranked list with reasons. Stays with the partner."""
