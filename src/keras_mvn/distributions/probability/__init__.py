"""Probabilities of boxes under a multivariate normal, and simultaneous intervals."""
