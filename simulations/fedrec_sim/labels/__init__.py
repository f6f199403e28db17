"""What can be done with less labels, measured: questions, pseudo-labels, predicted behaviour, a start from texts."""
