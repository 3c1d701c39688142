"""The entry point of the `keras-mvn` console script."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with which this process was started."""
    try:
        for name in ("click", "rich"):
            if importlib.util.find_spec(name) is None:
                sys.exit(f"keras-mvn: {name} is not installed; pip install 'keras-mvn[cli]'")
        from keras_mvn_cli._group import command

        command()
    except KeyboardInterrupt:  # outside a command; commands handle their own
        sys.stderr.write("keras-mvn: interrupted\n")
        sys.exit(130)
