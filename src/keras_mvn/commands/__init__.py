"""The commands of `keras-mvn`, one in each file; `keras_mvn.cli` puts them together.

What takes long to import, the commands import when they run: `--help` answers at once.
"""

__all__: list[str] = []
