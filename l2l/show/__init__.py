"""What was found, and what a space lets a search choose, as pictures and text."""
