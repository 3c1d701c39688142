"""The command `keras-mvn serve`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command

__all__ = ["serve"]


@click.command(cls=Command, short_help="Predict on request, over HTTP.")
@_options.model_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--max-rows", type=click.IntRange(1), default=10_000, show_default=True,
              help="Rows of a request, at most.")  # fmt: skip
@click.option("--max-bytes", type=click.IntRange(1), default=10_000_000, show_default=True,
              help="Bytes of a request's body, at most.")  # fmt: skip
def serve(model_dir: Path, host: str, port: int, max_rows: int, max_bytes: int) -> None:
    """Predict on request: POST /predict and /condition, GET /health, and /docs for people.

    Rows are JSON objects with the columns the model was fitted to; null is missing. By default the
    service listens on this machine only: it has no passwords, so put it behind a server that has.
    On SIGTERM and ^C, requests that have begun are finished first.

    \b
    Examples:
      keras-mvn serve air --port 8000
      curl localhost:8000/predict -H 'content-type: application/json' \\
           -d '{"rows": [{"Month": 7, "Latitude": 39.9}]}'
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn._core.optional import require
    from keras_mvn.serving.http import create_app
    from keras_mvn_cli._console import RefusalError
    from keras_mvn_cli._model import load_model

    uvicorn = require("uvicorn", "keras-mvn serve")
    model = load_model(model_dir)
    try:
        app = create_app(model, max_rows, max_bytes)
    except ValueError as error:
        raise RefusalError(f"{model_dir}: {error}") from error
    uvicorn.run(app, host=host, port=port, log_level="info", timeout_graceful_shutdown=30)
