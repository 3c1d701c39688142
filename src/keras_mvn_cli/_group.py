"""The `keras-mvn` command group: its commands, and how they report errors and exit."""

from __future__ import annotations

import sys

import click

from keras_mvn_cli._console import INTERRUPTED, NOBODY_READS, RefusalError, silence
from keras_mvn_cli.condition import condition
from keras_mvn_cli.demo import demo
from keras_mvn_cli.evaluate import evaluate
from keras_mvn_cli.explain import explain
from keras_mvn_cli.export import export
from keras_mvn_cli.fit import fit
from keras_mvn_cli.info import info
from keras_mvn_cli.predict import predict
from keras_mvn_cli.report import report
from keras_mvn_cli.serve import serve

__all__ = ["command"]


class _Group(click.Group):
    """A command group with one-line error messages and the documented exit codes."""

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe can still be handled
        except BrokenPipeError:
            silence(sys.stdout)
            ctx.exit(NOBODY_READS)
        except ImportError as error:
            if "pip install" not in str(error):  # a bug in another package: show the traceback
                raise
            raise RefusalError(str(error)) from error
        except KeyboardInterrupt as error:
            why = f"; {error}" if error.args else ""
            click.echo(f"keras-mvn: interrupted{why}", err=True)
            ctx.exit(INTERRUPTED)
        except ValueError as error:
            if not _is_of_a_table(error):
                raise
            raise RefusalError(str(error)) from error


def _is_of_a_table(error: Exception) -> bool:
    """Return whether it is a `TableError`; if its module was not imported, no table was read."""
    module = sys.modules.get("keras_mvn.tables.errors")
    return module is not None and isinstance(error, module.TableError)


@click.group(name="keras-mvn", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-mvn", prog_name="keras-mvn")
def command() -> None:
    """Predict several columns of a table jointly, with the covariance of their errors.

    \b
    Start here:
      keras-mvn demo
      keras-mvn fit table.csv --targets a,b,c --out model
      keras-mvn predict model new.csv --out predictions.csv

    \b
    Exit codes:
      0    success
      1    any other error
      2    invalid usage or an unusable table: one line on stderr, and no partial output is left
      130  interrupted by ^C; `fit` has saved the best weights so far
      141  the reader of stdout, such as `head`, closed the pipe; no message, as for any filter

    The backend is the one Keras is configured for (KERAS_BACKEND, or keras.json); if that one is
    not installed and KERAS_BACKEND is not set, the command uses one that is.
    """  # noqa: D301  (click's \b keeps these line breaks)


for _command in (fit, predict, evaluate, condition, explain, report, export, serve, demo, info):
    command.add_command(_command)
