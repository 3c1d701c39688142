"""The `keras-mvn` command, kept apart from the library.

Importing anything below `keras_mvn` imports Keras and with it a backend, so the command lives in a
package of its own: it answers `--help` and rejects invalid usage before either is imported. The
commands import `keras_mvn`, and the modules that need it, inside their bodies.
"""

__all__: list[str] = []
