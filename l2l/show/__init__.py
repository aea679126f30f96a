"""Shows found architectures and search spaces, as pictures and text."""
