"""A web service that predicts: an ASGI application for a fit directory, on FastAPI."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from keras_mvn._core.optional import require
from keras_mvn._core.version import __version__
from keras_mvn.distributions import Distribution
from keras_mvn.serving._batching import Batcher
from keras_mvn.serving._limits import SizeLimit
from keras_mvn.serving._schemas import Schemas
from keras_mvn.serving.conditioning import conditioned
from keras_mvn.serving.fitted_model import FittedModel
from keras_mvn.tables import TableError

__all__ = ["create_app"]


def create_app(
    model: FittedModel | str | Path, max_rows: int = 10_000, max_bytes: int = 10_000_000
) -> Any:
    """Return an ASGI application that predicts with a model of `keras-mvn fit`.

    `POST /predict` and `POST /condition` take rows as JSON objects, with all columns the model was
    fitted to; `null` is missing, as in `keras-mvn predict`. `GET /health` names inputs and targets,
    and `/docs` describes all of it (OpenAPI). Requests that arrive together are predicted together.
    Bad requests get a 4xx status and `{"detail": one line}`.

    Args:
        model: a fit directory, or what `FittedModel.load` read from one.
        max_rows: rows of a request, at most.
        max_bytes: bytes of a request's body, at most.

    Raises:
        ValueError: the model was fitted with lags, which need the rows before each row.
        ImportError: FastAPI is not installed (`pip install "keras-mvn[serve]"`).

    """
    fastapi = require("fastapi", "serving.create_app")
    loaded = model if isinstance(model, FittedModel) else FittedModel.load(model)
    schemas = Schemas(loaded.preprocessing.encoders, loaded.targets, max_rows)
    loaded.require_no_lags()
    batcher = Batcher(loaded.predict)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        loaded.no_rows()  # compiles, so that the first request need not
        await batcher.start()
        yield
        await batcher.stop()

    app = fastapi.FastAPI(
        title="keras-mvn", version=__version__, lifespan=lifespan,
        description="Joint predictions of several targets, with the covariance of their errors.",
    )  # fmt: skip
    app.add_middleware(SizeLimit, most=max_bytes)

    @app.exception_handler(fastapi.exceptions.RequestValidationError)
    async def invalid(request: Any, error: Any) -> Any:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        detail = f"{where}: {first['msg']}" if where else first["msg"]
        if "json" not in request.headers.get("content-type", ""):
            detail += "; send the header content-type: application/json"
        return _refusal(detail)

    @app.exception_handler(TableError)
    async def unfit(request: Any, error: Exception) -> Any:
        return _refusal(str(error))

    @app.get("/health")
    async def health() -> schemas.Health:  # type: ignore[name-defined]
        """Say that the service is up, and what it predicts from what."""
        return schemas.Health(
            status="ok",
            version=__version__,
            inputs=loaded.preprocessing.columns,
            targets=list(loaded.targets),
        )

    async def answered(rows: list[Any]) -> Distribution:
        table = schemas.table(rows)
        inputs, gaps = loaded.preprocessing.inputs_and_gaps(table)
        return await batcher.answer(inputs, loaded.absent(gaps))

    responses = {
        status: {"description": text, "model": schemas.Refusal}
        for status, text in ((400, "No text"), (413, "Too large"), (422, "Does not fit"))
    }

    @app.post("/predict", responses=responses)
    async def predict(request: schemas.Predict) -> schemas.Predictions:  # type: ignore[name-defined]
        """Predict all targets of each row, jointly."""
        answer = await answered(request.rows)
        return schemas.Predictions(rows=_rows(answer, request.level))

    @app.post("/condition", responses=responses)
    async def condition(request: schemas.Condition) -> schemas.Predictions:  # type: ignore[name-defined]
        """Predict the other targets of each row, given measured values of some."""
        values = schemas.measured(request)
        answer = await answered(request.rows)
        return schemas.Predictions(rows=_rows(conditioned(answer, values), request.level))

    return app


def _refusal(detail: str) -> Any:
    responses = require("fastapi.responses", "serving.create_app")
    return responses.JSONResponse({"detail": " ".join(detail.split())}, status_code=422)


def _rows(answer: Distribution, level: float) -> list[dict[str, float]]:
    found: list[dict[str, float]] = answer.to_frame(level=level).to_dict("records")
    return found
