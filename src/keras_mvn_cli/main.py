"""The command `keras-mvn`. `keras_mvn_cli.backends` chooses a backend, then calls `command`."""

from __future__ import annotations

import logging
import sys

import click

import keras_mvn
from keras_mvn_cli._console import INTERRUPTED, NOBODY_READS, RefusalError, silence
from keras_mvn_cli.condition import condition
from keras_mvn_cli.demo import demo
from keras_mvn_cli.evaluate import evaluate
from keras_mvn_cli.export import export
from keras_mvn_cli.fit import fit
from keras_mvn_cli.info import info
from keras_mvn_cli.predict import predict
from keras_mvn_cli.report import report

__all__ = ["command"]


class _Group(click.Group):
    """Commands whose errors are one line, and whose exit codes are the documented ones."""

    def invoke(self, ctx: click.Context) -> None:
        from keras_mvn.tables.errors import TableError

        try:
            super().invoke(ctx)
            sys.stdout.flush()  # here, where it can still be said that nobody reads it
        except BrokenPipeError:
            silence(sys.stdout)
            ctx.exit(NOBODY_READS)
        except TableError as error:
            raise RefusalError(str(error)) from error
        except ImportError as error:
            if "pip install" not in str(error):  # another package's trouble: let it be seen
                raise
            raise RefusalError(str(error)) from error
        except KeyboardInterrupt as error:
            why = f"; {error}" if error.args else ""
            click.echo(f"keras-mvn: interrupted{why}", err=True)
            ctx.exit(INTERRUPTED)


@click.group(name="keras-mvn", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keras_mvn.__version__, prog_name="keras-mvn")
def command() -> None:
    """Predict several columns of a table jointly, with the covariance of their errors.

    \b
    Start here:
      keras-mvn demo
      keras-mvn fit table.csv --targets a,b,c --out model
      keras-mvn predict model new.csv --out predictions.csv

    \b
    Exit codes:
      0    done
      1    an error of the program
      2    bad usage or a bad table: one line on stderr says what, and nothing is left half-written
      130  interrupted by ^C; `fit` has saved the best so far
      141  whoever read stdout has ended, such as `head`: as of any filter, without a word

    The backend is Keras' own choice (KERAS_BACKEND, or keras.json); if that one is not installed
    and KERAS_BACKEND is not set, the command takes one that is.
    """  # noqa: D301  (click's \b: lines stay as they are)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # what it says is no answer


for _command in (fit, predict, evaluate, condition, report, export, demo, info):
    command.add_command(_command)
