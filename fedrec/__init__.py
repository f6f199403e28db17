"""fedrec: a federated recommender that keeps interactions with their owners."""

__version__ = "0.1.0"
