"""One search, from its first trial to its result."""
