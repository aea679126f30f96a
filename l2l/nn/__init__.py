"""Layers that found modules are made of; needs jax and flax only."""
