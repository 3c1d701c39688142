"""The command `keras-mvn info`."""

from __future__ import annotations

import click

from keras_mvn_cli._command import Command

__all__ = ["info"]


@click.command(cls=Command)
def info() -> None:
    """Print versions, backend and kernels, for bug reports."""
    import keras
    from rich.console import Console

    import keras_mvn
    from keras_mvn_cli import backends
    from keras_mvn_cli._versions import version

    console = Console()
    console.print(f"keras-mvn {keras_mvn.__version__}, keras {keras.__version__}")
    installed = backends.installed_backends()
    for name in installed:
        in_use = " (in use)" if name == keras.backend.backend() else ""
        console.print(f"{name} {version(name)}{in_use}")
    for kernel in keras_mvn.kernels.status():
        console.print(f"{kernel.op}: {kernel.path} path; {kernel.detail}")
