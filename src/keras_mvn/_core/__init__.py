"""Foundations shared by all parts: types, checks, small numerics, files, interrupts."""

__all__: list[str] = []
