"""How good a scorer is: ranks, metrics that add up, named protocols, and the floors every model must beat."""
