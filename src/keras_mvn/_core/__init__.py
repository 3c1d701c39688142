"""What every part of the library stands on: types, checks, small numerics, files, interrupts."""

__all__: list[str] = []
