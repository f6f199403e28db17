"""The sentiment example: a federated head, a stream of reviews with an injected jump, and how soon it is found."""
