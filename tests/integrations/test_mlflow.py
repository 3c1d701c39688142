"""Models logged to MLflow: read again, and served by MLflow's own server."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas
import pytest

from commands import run
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.integrations import log_fit, log_model
from keras_mvn.serving import BatchPredictor

pytestmark = [
    pytest.mark.once,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

QUICK = ["--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal"]
QUICK += ["--embedding", "none", "--mean", "none", "--cv", "none"]


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.normal(size=(120, 4)).round(3), columns=list("uvab"))
    return frame.assign(kind=np.array(["x", "y"])[rng.integers(2, size=120)])


@pytest.fixture(scope="module")
def fitted(frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    frame.to_csv(folder / "t.csv", index=False)
    run("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "fit", *QUICK)
    return folder / "fit"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("fits", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("fits")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(scope="module")
def logged(fitted, store):
    with mlflow.start_run() as active:
        return log_fit(fitted), active.info.run_id


def test_settings_scores_and_report_are_logged(fitted, logged):
    found = mlflow.get_run(logged[1])
    metrics = json.loads((fitted / "metrics.json").read_text())["test"]
    expected = metrics["model"]["scores"]["nll_per_target"]["mean"]
    assert found.data.metrics["test.nll_per_target"] == pytest.approx(expected)
    assert "test.diagonal.nll_per_target" in found.data.metrics
    assert found.data.params["covariance"] == "cholesky"
    assert found.data.params["targets"] == "a, b"
    names = {one.path for one in mlflow.MlflowClient().list_artifacts(logged[1])}
    assert names >= {"report.html", "model_card.md"}


def test_the_function_gives_a_plain_table(fitted, frame, logged):
    table = frame.assign(u=frame["u"].where(frame.index % 3 > 0))  # gaps
    found = mlflow.pyfunc.load_model(logged[0].model_uri).predict(table)
    pandas.testing.assert_frame_equal(found, BatchPredictor(fitted)(table))
    assert list(found.columns[:3]) == ["a_mean", "a_stddev", "a_lower"]


def test_an_estimator_and_its_outputs(store):
    x = np.random.default_rng(0).normal(size=(80, 2))
    settings = {"hidden": (4,), "epochs": 2, "tails": "normal", "embedding": None, "mean": None}
    estimator = MultivariateNormalRegressor(cv=None, random_state=0, **settings).fit(x, x)
    with mlflow.start_run():
        info = log_model(estimator, outputs=["mean"])
    found = mlflow.pyfunc.load_model(info.model_uri).predict(
        pandas.DataFrame(x, columns=["a", "b"])
    )
    np.testing.assert_allclose(found.to_numpy(), estimator.predict(x), rtol=1e-5)


def test_mlflow_serves_it(fitted, frame, logged, store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", logged[0].model_uri, "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # of uvicorn
    with subprocess.Popen(
        [*command, "--workers", "1"],
        env={**os.environ, "MLFLOW_TRACKING_URI": store, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            wait_for(f"{url}/ping", server)
            rows = frame.head(5).drop(columns=["a", "b"])
            body = json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split"))})
            request = urllib.request.Request(
                f"{url}/invocations", body.encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = pandas.DataFrame(json.load(answer)["predictions"])
        finally:
            stop(server)
    expected = BatchPredictor(fitted)(rows)
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-6)


def wait_for(url, server):
    """Wait until the server answers."""
    for _ in range(180):
        assert server.poll() is None, "MLflow's server has ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1.0)
    raise AssertionError("MLflow's server does not answer")


def stop(server):
    """End the server and its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(server.pid, number)
            server.wait(20)
