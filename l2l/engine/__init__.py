"""Trains candidates as lanes of compiled programs."""
