"""The web service: predictions of the command, refusals of one line, and SIGTERM."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pandas
import pytest

from commands import refused, run
from keras_mvn.serving import create_app

testclient = pytest.importorskip("fastapi.testclient")
pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal", "--cv",
         "none", "--mean", "none", "--embedding", "none", "--no-baselines"]  # fmt: skip


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    frame = pandas.DataFrame(rng.normal(size=(n, 4)).round(4), columns=["u", "v", "a", "b"])
    frame["color"] = rng.choice(["red", "green"], n)
    frame["code"] = rng.choice([3, 5], n)
    frame.loc[3, "v"] = np.nan
    return frame


def sent(frame):
    """Rows as a client sends them: null where missing."""
    return json.loads(frame.to_json(orient="records"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("http")
    rows(150).to_csv(folder / "t.csv", index=False)
    out = folder / "fit"
    run("fit", folder / "t.csv", "--targets", "a,b", "--out", out, "--as", "code=category", *QUICK)
    rows(40, 1).to_csv(folder / "new.csv", index=False)
    run("predict", out, folder / "new.csv", "--out", folder / "p.csv")
    run("condition", out, folder / "new.csv", "--given", "a=@a", "--out", folder / "c.csv")
    return folder


@pytest.fixture(scope="module")
def client(fitted):
    with testclient.TestClient(create_app(fitted / "fit", max_rows=100, max_bytes=50_000)) as found:
        yield found


def assert_are(response, path):
    assert response.status_code == 200, response.text
    found = pandas.DataFrame(response.json()["rows"])
    pandas.testing.assert_frame_equal(found, pandas.read_csv(path), rtol=1e-5, atol=1e-6)


class TestAnswers:
    def test_health_names_columns(self, client):
        found = client.get("/health").json()
        assert found["status"] == "ok"
        assert found["targets"] == ["a", "b"]
        assert set(found["inputs"]) == {"u", "v", "color", "code"}

    def test_predictions_are_the_commands(self, client, fitted):
        response = client.post("/predict", json={"rows": sent(rows(40, 1))})
        assert_are(response, fitted / "p.csv")

    def test_conditions_are_the_commands(self, client, fitted):
        new = rows(40, 1)
        body = {"rows": sent(new), "given": {"a": new["a"].tolist()}}
        assert_are(client.post("/condition", json=body), fitted / "c.csv")
        one = client.post("/condition", json={"rows": sent(new[:3]), "given": {"a": 1.5}}).json()
        assert set(one["rows"][0]) == {"b_mean", "b_stddev", "b_lower", "b_upper"}
        gaps = {"rows": sent(new[:2]), "given": {"a": [new["a"][0], None]}}
        found = client.post("/condition", json=gaps).json()["rows"]
        plain = pandas.read_csv(fitted / "p.csv")
        assert found[1]["b_mean"] == pytest.approx(plain["b_mean"][1], rel=1e-4, abs=1e-6)

    def test_requests_at_once_get_their_own_rows(self, client, fitted):
        expected, new = pandas.read_csv(fitted / "p.csv"), sent(rows(40, 1))

        def ask(i):
            return client.post("/predict", json={"rows": new[i : i + 1 + i % 3]}).json()["rows"]

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(37)))
        for i, found in enumerate(answers):
            assert len(found) == 1 + i % 3
            assert found[0]["a_mean"] == pytest.approx(expected["a_mean"][i], rel=1e-4, abs=1e-6)


ROW = {"u": 1.0, "v": 0.5, "color": "red", "code": 3}


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "body", "status", "match"),
        [
            ("predict", b"{", 422, "JSON"),
            ("predict", b"", 422, "required"),
            ("predict", b'{"rows": [{"u": NaN}]}', 422, "finite"),
            ("predict", b'{"rows": [{"u": 1e999}]}', 422, "finite"),
            ("predict", {"rows": []}, 422, "at least 1 item"),
            ("predict", {"rows": [ROW] * 101}, 422, "at most 100 items"),
            ("predict", {"rows": [{"w": 1.0}]}, 422, "rows.0.u: Field required"),
            ("predict", {"rows": [ROW, {**ROW, "v": None, "u": ""}]}, 422, "rows.1.u"),
            (
                "predict",
                {"rows": [{**ROW, "u": "high"}]},
                422,
                "rows.0.u: Input should be a valid number",
            ),
            ("predict", {"rows": [ROW, {**ROW, "code": "x"}]}, 422, "mixes float, str"),
            ("predict", {"rows": [{**ROW, "u": [1.0]}]}, 422, "rows"),
            ("predict", {"rows": [ROW], "level": 90}, 422, "less than 1"),
            ("predict", {"rows": [ROW], "lines": 1}, 422, "Extra inputs"),
            ("predict", {"rows": [{**ROW, "u": 1e300}]}, 422, "rows.0.u: Input should be less"),
            ("condition", {"rows": [ROW]}, 422, "given"),
            ("condition", {"rows": [ROW], "given": {}}, 422, "at least one of"),
            ("condition", {"rows": [ROW], "given": {"a": 1, "b": 1}}, 422, "leave at least one"),
            ("condition", {"rows": [ROW], "given": {"a": 1e308}}, 422, "given.a"),
            ("condition", {"rows": [ROW], "given": {"c": 1}}, 422, "given.c: Extra inputs"),
            ("condition", {"rows": [ROW], "given": {"a": [1, 2]}}, 422, "2 values for 1 rows"),
            ("predict", b" " * 60_000, 413, "more than 50000 bytes"),
            ("../fit.json", {"rows": [ROW]}, 404, "Not Found"),
        ],
    )
    def test_are_one_line_and_the_service_goes_on(self, client, path, body, status, match):
        content = body if isinstance(body, bytes) else json.dumps(body)
        response = client.post(f"/{path}", content=content,
                               headers={"content-type": "application/json"})  # fmt: skip
        assert response.status_code == status, response.text
        detail = response.json()["detail"]
        assert match in detail
        assert "\n" not in detail
        assert client.post("/predict", json={"rows": [ROW]}).status_code == 200

    def test_a_body_whose_length_is_not_said(self, client):
        def chunks():
            for _ in range(100):
                yield b" " * 1000

        response = client.post("/predict", content=chunks())
        assert response.status_code == 413

    def test_models_with_lags_are_refused_at_the_start(self, fitted, tmp_path):
        frame = rows(80)
        frame.insert(0, "t", np.arange(80))
        frame.to_csv(tmp_path / "t.csv", index=False)
        run("fit", tmp_path / "t.csv", "--targets", "a,b", "--time", "t", "--lags", 1,
            "--lag-columns", "a", "--out", tmp_path / "fit", *QUICK)  # fmt: skip
        assert "--lags" in refused("serve", tmp_path / "fit", "--port", 0)


def test_a_process_finishes_what_it_began(fitted):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from keras_mvn_cli.main import main; main()"
    command = [sys.executable, "-c", program, "serve", str(fitted / "fit")]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stderr=subprocess.DEVNULL, env=os.environ
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process)
        body = json.dumps({"rows": sent(rows(40, 1)) * 240}).encode()

        def ask():
            request = urllib.request.Request(
                f"{url}/predict", body, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                return len(json.loads(response.read())["rows"])

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert answer.result() == 9600
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def _wait(url, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError("the service did not start")
