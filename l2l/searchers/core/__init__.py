"""What searchers are made of."""
