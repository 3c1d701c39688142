"""`keras-mvn info`."""

from __future__ import annotations

import click

__all__ = ["info"]


@click.command()
def info() -> None:
    """Versions, backend and kernels, for bug reports."""
    import keras
    from rich.console import Console

    import keras_mvn
    import keras_mvn_launcher
    from keras_mvn.commands._versions import version

    console = Console()
    console.print(f"keras-mvn {keras_mvn.__version__}, keras {keras.__version__}")
    installed = keras_mvn_launcher.installed_backends()
    for name in installed:
        in_use = " (in use)" if name == keras.backend.backend() else ""
        console.print(f"{name} {version(name)}{in_use}")
    for kernel in keras_mvn.kernels.status():
        console.print(f"{kernel.op}: {kernel.path} path; {kernel.detail}")
