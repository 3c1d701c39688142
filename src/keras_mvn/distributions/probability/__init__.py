"""Probabilities of boxes under a multivariate normal, and simultaneous intervals."""

__all__: list[str] = []
