"""Searchers: each proposes candidates and learns from their rewards."""
