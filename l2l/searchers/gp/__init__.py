"""The search by a Gaussian process."""
