"""The command `keras-mvn`, beside the library.

Importing anything below `keras_mvn` imports Keras and with it a backend, so the command lives in a
package of its own: it answers `--help` and refuses bad usage before either is imported. Its
modules import `keras_mvn` inside the bodies of commands.
"""
