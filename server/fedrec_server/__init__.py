"""The coordinator: plans rounds, checks answers, aggregates, commits. No code here could read a row."""
