"""Sentiment of a stream of texts: windows, topics, and an alarm when the negative share jumps."""
