"""Trackers: those who watch a search."""
