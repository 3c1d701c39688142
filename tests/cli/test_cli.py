"""The command line for tables: fit directories, predictions from them, errors, signals, memory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas
import pyarrow.feather
import pyarrow.parquet
import pytest
from scipy import stats

from commands import refused, run
from keras_mvn import MultivariateNormal
from keras_mvn._training import absent_inputs
from keras_mvn.distributions import Distribution
from keras_mvn.serving import FittedModel
from keras_mvn.tables import columnar, open_table, text
from keras_mvn_cli import _model, backends
from keras_mvn_cli._conditioning import parsed
from keras_mvn_cli._console import Output
from keras_mvn_cli._findings import Findings
from keras_mvn_cli.fitting import networks as _networks
from keras_mvn_cli.fitting import training as _fit_training
from predictions import within

QUICK = ["--epochs", "3", "--hidden", "8", "--covariance", "cholesky", "--members", 1]
QUICK += ["--tails", "normal", "--cv", "none", "--embedding", "none", "--mean", "none"]
TARGETS = ["a", "b", "c"]
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def make_table(n=240, seed=0):
    rng = np.random.default_rng(seed)
    day = pandas.Timestamp("2024-01-01") + pandas.to_timedelta(np.arange(n), "D")
    size, color = rng.normal(size=n), rng.choice(["red", "green", "blue"], n)
    noise = rng.multivariate_normal(np.zeros(3), [[1, 0.8, 0], [0.8, 1, 0.3], [0, 0.3, 1]], n)
    y = np.stack([size, -size, (color == "red") * 2.0], axis=1) + 0.5 * noise
    frame = pandas.DataFrame(
        {
            "id": [f"row {i}" for i in range(n)],
            "day": day.strftime("%d/%m/%Y"),
            "patient": rng.integers(0, 40, n),
            "size": size.round(5),
            "color": color,
            "open": rng.choice(["yes", "no"], n),
            **dict(zip(TARGETS, y.T.round(5), strict=True)),
        }
    )
    frame.loc[rng.random(n) < 0.1, "size"] = np.nan
    frame.loc[rng.random(n) < 0.2, "b"] = np.nan
    return frame


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    make_table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fitted(table):
    out = table.parent / "fit"
    result = run("fit", table, "--targets", "a,b,c", "--out", out, *QUICK)
    return out, result.output


def split_of(folder):
    with np.load(folder / "split.npz") as file:
        return {name: file[name] for name in file.files}


def test_rows_of(folder):
    with np.load(folder / "test/y.npz") as file:
        return file["rows"], file["y"]


test_rows_of.__test__ = False


def seen_in(folder, x):
    return within(FittedModel.load(folder).members[0], x)


class TestFit:
    def test_the_directory_holds_everything(self, fitted):
        out, printed = fitted
        assert sorted(path.name for path in out.iterdir()) == [
            "calibration.json", "donors.npy", "fit.json", "history.csv", "metrics.json",
            "model.keras", "model_card.md", "preprocessing.json", "report.html", "report.md",
            "split.npz", "test",
        ]  # fmt: skip
        assert not list(out.parent.glob("*partial*"))
        for words in ("id: dropped, an identifier", "day: date", "color: category, 3", "open: bool",
                      "missing: imputed", "target b: ", "144 train", "joint 90 %"):  # fmt: skip
            assert words in printed

    def test_fit_json_says_how_it_was_made(self, fitted):
        about = json.loads((fitted[0] / "fit.json").read_text())
        assert re.fullmatch(
            r"All standard deviations were multiplied by \d\.\d{3}, the factor at which "
            r"90 % regions contain 90 % of 24 calibration rows\.",
            about["calibration"],
        )
        assert about["targets"] == TARGETS
        assert about["columns"] == ["day", "patient", "size", "color", "open"]
        assert about["rows"] == {"train": 144, "validation": 36, "calibration": 24, "test": 36}
        assert {"keras", "numpy", "python", "keras-mvn"} <= set(about["versions"])
        assert about["options"]["epochs"] == 3
        assert not about["interrupted"]

    @pytest.mark.once
    def test_the_split_is_a_partition_of_the_file(self, fitted):
        parts = split_of(fitted[0])
        np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(240))
        assert pandas.read_csv(fitted[0] / "history.csv")["epoch"].tolist() == [1, 2, 3]

    def test_metrics_are_those_of_scipy(self, fitted):
        out, _ = fitted
        frame, (rows, y) = make_table(), test_rows_of(out)
        np.testing.assert_allclose(y, frame[TARGETS].to_numpy()[rows])
        metrics = json.loads((out / "metrics.json").read_text())["test"]
        assert list(metrics) == ["model", "uncalibrated", "diagonal", "constant Σ"]
        for name, file in (("model", "model"), ("constant Σ", "constant_covariance")):
            normal = MultivariateNormal.load(out / f"test/{file}.npz")
            nll = []
            for mean, cov, row in zip(normal.mean, normal.covariance, y, strict=True):
                seen = ~np.isnan(row)
                marginal = stats.multivariate_normal(mean[seen], cov[np.ix_(seen, seen)])
                nll.append(-marginal.logpdf(row[seen]))
            found = metrics[name]["scores"]["nll"]["mean"]
            assert found == pytest.approx(np.mean(nll), rel=1e-6)

    def test_baselines_are_what_they_are_called(self, fitted):
        diagonal, constant = (
            MultivariateNormal.load(fitted[0] / f"test/{name}.npz")
            for name in ("diagonal", "constant_covariance")
        )
        assert (diagonal.correlation == np.eye(3)).all()
        np.testing.assert_allclose(constant.covariance, constant.covariance[:1].repeat(36, 0))
        assert diagonal.stddev.std(axis=0).min() > 0
        assert diagonal.target_names == tuple(TARGETS)

    def test_calibration_is_applied(self, fitted):
        out, _ = fitted
        serialized = json.loads((out / "calibration.json").read_text())["calibration"]
        temperature = serialized["config"]["temperature"]
        before, after = (
            MultivariateNormal.load(out / f"test/{name}.npz") for name in ("uncalibrated", "model")
        )
        np.testing.assert_allclose(after.stddev, temperature * before.stddev)

    @pytest.mark.once
    def test_json_is_alone_on_stdout(self, table, tmp_path):
        out = tmp_path / "fit"
        arguments = ["fit", table, "--targets", "a", "--out", out, *QUICK, "--no-baselines"]
        result = run(*arguments, "--calibration", "none", "--json")
        found = json.loads(result.stdout)
        assert list(found["metrics"]["test"]) == ["model"]
        assert found["fit"]["rows"]["calibration"] == 0
        assert "size: number" in result.stderr

    @pytest.mark.once
    def test_groups_and_times(self, table, tmp_path):
        frame = make_table()
        run("fit", table, "--targets", "a,b", "--group", "patient", "--out", tmp_path / "g", *QUICK,
            "--no-baselines")  # fmt: skip
        groups = [set(frame["patient"][rows]) for rows in split_of(tmp_path / "g").values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == frame["patient"].nunique()
        about = json.loads((tmp_path / "g/fit.json").read_text())
        assert "patient" not in about["columns"]
        run("fit", table, "--targets", "a,b", "--time", "day", "--out", tmp_path / "t", *QUICK,
            "--no-baselines")  # fmt: skip
        np.testing.assert_array_equal(split_of(tmp_path / "t")["test"], np.arange(204, 240))

    def test_an_ensemble(self, table, tmp_path):
        out = tmp_path / "fit"
        run("fit", table, "--targets", "a,b,c", "--out", out, *QUICK, "--members", 2,
            "--no-baselines")  # fmt: skip
        assert len(list((out / "members").iterdir())) == 2
        assert not (out / "model.keras").exists()
        run("predict", out, table, "--out", tmp_path / "p.csv")
        stored = MultivariateNormal.load(out / "test/model.npz")
        found = pandas.read_csv(tmp_path / "p.csv").iloc[test_rows_of(out)[0]]
        np.testing.assert_allclose(found["b_stddev"], stored.stddev[:, 1], rtol=1e-4)
        assert "of an ensemble" in refused("export", out, "--outputs", "scale_tril")

    @pytest.mark.once
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "calibration", [pytest.param("temperature", marks=pytest.mark.full), "matrix"]
    )
    def test_an_exported_ensemble_has_the_calibration(self, calibration, table, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        from keras_mvn.tables import Preprocessing, open_table

        out = tmp_path / "fit"
        run("fit", table, "--targets", "a,b,c", "--out", out, *QUICK, "--members", 2,
            "--calibration", calibration, "--no-baselines")  # fmt: skip
        run("export", out, "--outputs", "mean,covariance")
        batch = next(open_table(table).batches())
        x = Preprocessing.load(out / "preprocessing.json").inputs(batch)
        session = onnxruntime.InferenceSession(out / "model.onnx")
        mean, covariance = session.run(None, {session.get_inputs()[0].name: x})
        expected, rows = MultivariateNormal.load(out / "test/model.npz"), test_rows_of(out)[0]
        sd = expected.stddev
        assert np.abs((mean[rows] - expected.mean) / sd).max() < 1e-4
        difference = covariance[rows] - expected.covariance
        relative = np.abs(difference / (sd[:, :, None] * sd[:, None, :]))
        assert relative[seen_in(out, x[rows])].max() < 1e-4

    @pytest.mark.once
    @pytest.mark.slow
    def test_auto_chooses_and_lists_what_it_tried(self, table, tmp_path):
        out = tmp_path / "fit"
        result = run("fit", table, "--targets", "a,b,c", "--out", out, "--epochs", 3, "--json",
                     "--cv", "none", "--embedding", "none", "--mean", "none")  # fmt: skip
        tried = json.loads(result.stdout)["fit"]["selection"]
        assert {"cholesky", "diagonal"} <= {one["name"] for one in tried}
        assert tried == sorted(tried, key=lambda one: one["validation_nll"])

    @pytest.mark.once
    @pytest.mark.parametrize("members", [1, 2])
    @pytest.mark.slow
    def test_one_target_by_default(self, members, tmp_path):
        make_table().drop(columns=["b", "c"]).to_csv(tmp_path / "t.csv", index=False)
        out = tmp_path / "fit"
        run("fit", tmp_path / "t.csv", "--targets", "a", "--out", out, "--epochs", 3,
            "--members", members, "--hidden", 8, "--cv", "none", "--embedding", "none",
            "--mean", "none")  # fmt: skip
        constant = Distribution.load(out / "test/constant_covariance.npz")
        if members == 1:  # of the means of an ensemble the spread is added
            np.testing.assert_allclose(constant.variance, np.full((36, 1), constant.variance[0]))
        metrics = json.loads((out / "metrics.json").read_text())["test"]
        assert {"diagonal", "constant Σ"} < set(metrics)
        make_table().iloc[test_rows_of(out)[0]].to_csv(tmp_path / "test.csv", index=False)
        found = json.loads(run("evaluate", out, tmp_path / "test.csv", "--json").stdout)
        nll = metrics["model"]["scores"]["nll"]["mean"]
        assert found["scores"]["nll"]["mean"] == pytest.approx(nll, rel=1e-4)
        header = run("predict", out, tmp_path / "test.csv").stdout.splitlines()[0]
        assert header == "a_mean,a_stddev,a_lower,a_upper"
        run("report", out)

    @pytest.mark.once
    @pytest.mark.slow
    def test_a_network_that_was_compared_is_not_trained_again(self, table, tmp_path, monkeypatch):
        kept, reuse = [], _fit_training.reuse
        monkeypatch.setattr(
            _fit_training, "reuse", lambda *a: (reuse(*a), kept.append(a[2].exists()))
        )
        run("fit", table, "--targets", "a,b", "--out", tmp_path / "fit", "--epochs", 1,
            "--members", 1, "--hidden", 4, "--tails", "t", "--cv", "none", "--embedding",
            "none", "--mean", "none")  # fmt: skip
        assert kept == [True, True]

    @pytest.mark.once
    @pytest.mark.slow
    def test_what_is_compared_is_per_target(self, table, tmp_path):
        out = tmp_path / "fit"
        result = run("fit", table, "--targets", "a,b,c", "--out", out, "--epochs", 1, "--members",
                     1, "--hidden", 4, "--no-baselines", "--cv", "none", "--embedding",
                     "none", "--mean", "none")  # fmt: skip
        line = next(x for x in result.stdout.splitlines() if "NLL per target on held-out" in x)
        first = json.loads((out / "fit.json").read_text())["selection"][0]
        y = make_table()[TARGETS].to_numpy()[split_of(out)["validation"]]
        expected = first["validation_nll"] * len(y) / (~np.isnan(y)).sum()
        assert f": {_networks.label_of(first)} {expected:.3f}" in line
        assert "RMSE/sd" in result.stdout
        assert "sd: standard deviation of the target in the training rows" in result.stdout

    @pytest.mark.once
    @pytest.mark.slow
    def test_notes_name_the_targets_and_come_once(self, table, tmp_path):
        make_table().assign(b=lambda t: 2 * t["a"]).to_csv(tmp_path / "t.csv", index=False)
        few = ["--group", "g", "--calibration", "matrix"]
        frame = pandas.read_csv(tmp_path / "t.csv").drop(columns="c")
        frame["g"] = np.where(np.arange(240) < 8, "tiny", np.arange(240) % 4)
        frame.to_csv(tmp_path / "t.csv", index=False)
        result = run("fit", tmp_path / "t.csv", "--targets", "a,b", "--out", tmp_path / "fit",
                     *QUICK, *few)  # fmt: skip
        assert result.output.count("collinear: a, b (") == 1
        assert "target 0" not in result.output
        assert result.output.count("was skipped") == 1

    @pytest.mark.once
    @pytest.mark.slow
    def test_too_few_groups_and_too_many_numbers_are_warned_of(self, tmp_path):
        frame = make_table().assign(site=np.repeat(["n", "s", "e", "w"], [70, 70, 70, 30]))
        frame.to_csv(tmp_path / "t.csv", index=False)
        arguments = ["fit", tmp_path / "t.csv", "--targets", "a,b", "--out", tmp_path / "fit",
                     "--no-baselines"]  # fmt: skip
        result = run(*arguments, *QUICK, "--group", "site")
        assert "70 of 240 rows are for training, not 60 %" in result.stderr
        assert "are for training" in (tmp_path / "fit/report.html").read_text()
        quick = ["low_rank:5" if word == "cholesky" else word for word in QUICK]
        result = run(*arguments, *quick, "--overwrite")
        assert len(result.stderr.strip().splitlines()) == 1
        assert "low_rank:5: 14 numbers per row for 2 targets" in result.stderr
        assert "warning" not in run(*arguments, *QUICK, "--overwrite").output

    @pytest.mark.once
    def test_missing_values_are_declared(self, tmp_path):
        frame = make_table().fillna({"b": -200, "size": -200.0})
        frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
        out = tmp_path / "fit"
        run("fit", tmp_path / "t.tsv", "--targets", "a,b,c", "--missing-value", -200, "--out", out,
            *QUICK, "--no-baselines")  # fmt: skip
        rows, y = test_rows_of(out)
        np.testing.assert_array_equal(np.isnan(y[:, 1]), make_table()["b"].isna()[rows])


@pytest.mark.once
def test_by_default_the_90_percent_regions_cover_90_percent_of_the_calibration_rows(fitted, table):
    out, _ = fitted
    model = FittedModel.load(out)
    batches = _model.stream(
        model, open_table(table), Findings(Output(False, quiet=True), strict=False)
    )
    normal = MultivariateNormal.concatenate([rows.normal for rows in batches])
    rows = split_of(out)["calibration"]
    y = make_table()[TARGETS].to_numpy()[rows]
    seen = ~np.isnan(y)
    limit = stats.chi2(seen.sum(axis=1)).ppf(0.9)
    squared = normal[rows].mahalanobis(y, missing="marginalize") ** 2
    assert (squared <= limit * (1 + 1e-4)).sum() == np.ceil(0.9 * (len(rows) + 1))
    assert (squared <= limit * (1 - 1e-4)).sum() < np.ceil(0.9 * (len(rows) + 1))


@pytest.mark.once
@pytest.mark.parametrize("calibration", ["coverage", "temperature"])
@pytest.mark.slow
def test_a_target_that_only_training_rows_have(fitted, tmp_path, calibration):
    frame = make_table()
    train = split_of(fitted[0])["train"]
    frame["rare"] = np.nan
    frame.loc[train, "rare"] = frame.loc[train, "a"] ** 2
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "fit"
    run("fit", tmp_path / "t.csv", "--targets", "a,b,c,rare", "--drop", "id", "--out", out, *QUICK,
        "--calibration", calibration)  # fmt: skip
    np.testing.assert_array_equal(split_of(out)["train"], train)
    metrics = json.loads((out / "metrics.json").read_text())
    found = [*metrics["test"].values(), *metrics["baselines_uncalibrated"].values()]
    assert len(found) == 6
    for one in found:
        assert np.isfinite(one["scores"]["nll"]["mean"])
        assert set(one["scores"]["crps"]["per_target"]) == set(TARGETS)


@pytest.mark.once
def test_each_network_predicts_the_test_rows_once(table, tmp_path, monkeypatch):
    calls, predict = [], absent_inputs.predict_distribution
    monkeypatch.setattr(
        absent_inputs, "predict_distribution", lambda *a: calls.append(a) or predict(*a)
    )
    run("fit", table, "--targets", "a,b", "--out", tmp_path / "fit", *QUICK)
    of_test_rows = [x for _, x in calls if len(x) == 36]
    assert len(of_test_rows) == 4  # the model, two baselines, and once to be explained
    about = json.loads((tmp_path / "fit/fit.json").read_text())
    y = make_table()[["a", "b"]].to_numpy()[split_of(tmp_path / "fit")["train"]]
    np.testing.assert_allclose(about["target_stddev"], np.nanstd(y, axis=0))


def test_tensorflow_is_silenced_before_it_may_be_imported(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    backends.load_library()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"


class TestPredict:
    def test_as_the_test_rows_were_predicted(self, fitted, table, tmp_path, monkeypatch):
        monkeypatch.setattr(text, "BLOCK", 2048)  # several batches
        out, _ = fitted
        rows, _ = test_rows_of(out)
        stored = MultivariateNormal.load(out / "test/model.npz")
        lower, upper = stored.interval(0.5)
        readers = {"p.csv": pandas.read_csv, "p.csv.gz": pandas.read_csv}
        readers |= {"p.parquet": pandas.read_parquet, "p.feather": pandas.read_feather}
        for name, read in readers.items():
            path = tmp_path / name
            assert "240 rows" in run("predict", out, table, "--out", path, "--level", 0.5).output
            found = read(path).iloc[rows]
            for j, target in enumerate(TARGETS):
                for kind, values in (("mean", stored.mean), ("stddev", stored.stddev),
                                     ("lower", lower), ("upper", upper)):  # fmt: skip
                    np.testing.assert_allclose(
                        found[f"{target}_{kind}"], values[:, j], rtol=1e-4, atol=1e-5
                    )
            correlation = found["a_b_correlation"]
            np.testing.assert_allclose(correlation, stored.correlation[:, 0, 1], atol=1e-5)
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "p.csv", "p.csv.gz", "p.feather", "p.parquet",
        ]  # fmt: skip

    @pytest.mark.once
    def test_csv_on_stdout_with_columns_kept(self, fitted, table):
        result = run("predict", fitted[0], table, "--keep", "id,color")
        lines = result.stdout.splitlines()
        assert lines[0].startswith("id,color,a_mean,a_stddev,a_lower,a_upper,b_mean")
        assert lines[1].startswith("row 0,")
        assert len(lines) == 241

    @pytest.mark.once
    @pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".parquet", ".feather"])
    def test_columns_are_kept_as_they_are(self, suffix, fitted, tmp_path, monkeypatch):
        """Not as pandas makes them floats, of 9 digits, of another type in every batch."""
        monkeypatch.setattr(columnar, "ROWS", 100)  # the second batch has a gap, the first has none
        key = pandas.array(range(1234567890123, 1234567890363), dtype="Int64")
        key[150] = None
        lat = 48.0 + np.random.default_rng(0).random(240)
        frame = make_table().assign(key=key, lat=lat, flag=key > 1234567890200)
        frame["kind"] = pandas.Categorical(["x", "y"] * 60 + ["z", "x"] * 60)
        frame.to_parquet(tmp_path / "t.parquet")
        out, kept = tmp_path / f"p{suffix}", ["key", "lat", "flag", "kind"]
        run("predict", fitted[0], tmp_path / "t.parquet", "--keep", ",".join(kept), "--out", out)
        if suffix in (".parquet", ".feather"):
            read = {".parquet": pyarrow.parquet, ".feather": pyarrow.feather}[suffix].read_table
            found = read(out).select(kept)
            assert [str(t) for t in found.schema.types] == ["int64", "double", "bool", "string"]
            expected = pyarrow.Table.from_pandas(frame[kept].astype({"kind": str}))
            assert found.to_pydict() == expected.to_pydict()
            return
        separator = "," if suffix == ".csv" else "\t"
        found = pandas.read_csv(out, sep=separator, dtype=str, keep_default_na=False)
        assert found["key"].tolist() == ["" if pandas.isna(k) else str(k) for k in key]
        assert [float(text) for text in found["lat"]] == lat.tolist()
        assert found["kind"].tolist() == frame["kind"].tolist()
        assert found["a_mean"].str.len().max() <= 15

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("name", "match"),
        [("p.tsv.csv", None), ("p.parquet.gz", "expected a file"), ("p.gz", "expected a file")],
    )
    def test_the_last_suffix_says_the_format(self, name, match, fitted, table, tmp_path):
        if match is not None:
            assert match in refused("predict", fitted[0], table, "--out", tmp_path / name)
            assert not list(tmp_path.iterdir())
            return
        run("predict", fitted[0], table, "--out", tmp_path / name)
        assert pandas.read_csv(tmp_path / name).shape == (240, 15)

    @pytest.mark.once
    def test_a_column_that_is_called_like_a_prediction_is_not_kept(self, fitted, tmp_path):
        make_table().assign(a_mean=0).to_csv(tmp_path / "t.csv", index=False)
        arguments = ["predict", fitted[0], tmp_path / "t.csv", "--keep"]
        assert "--keep a_mean: " in refused(*arguments, "id,a_mean", "--out", tmp_path / "p.csv")
        assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
        assert run(*arguments, "id,id").stdout.startswith("id,a_mean,a_stddev")

    @pytest.mark.once
    def test_targets_are_not_needed(self, fitted, tmp_path):
        make_table().drop(columns=[*TARGETS, "id"]).to_parquet(tmp_path / "new.parquet")
        run("predict", fitted[0], tmp_path / "new.parquet", "--out", tmp_path / "p.csv")

    @pytest.mark.once
    def test_tables_that_do_not_fit_are_refused(self, fitted, tmp_path):
        make_table().drop(columns=["size", "open"]).to_csv(tmp_path / "lacking.csv", index=False)
        line = refused("predict", fitted[0], tmp_path / "lacking.csv", "--out", tmp_path / "p.csv")
        assert "'size', 'open' are missing" in line
        make_table().astype({"patient": str}).assign(patient="Smith").to_csv(
            tmp_path / "text.csv", index=False
        )
        line = refused("predict", fitted[0], tmp_path / "text.csv", "--out", tmp_path / "p.csv")
        assert "'patient' must hold numbers" in line
        assert "'Smith'" in line
        assert sorted(p.name for p in tmp_path.iterdir()) == ["lacking.csv", "text.csv"]

    @pytest.mark.once
    def test_an_unknown_category_is_predicted_and_told(self, fitted, tmp_path):
        make_table().assign(color="violet").to_csv(tmp_path / "new.csv", index=False)
        result = run("predict", fitted[0], tmp_path / "new.csv", "--out", tmp_path / "p.csv")
        assert "values such as 'violet' were absent or too rare in training" in result.output

    @pytest.mark.once
    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_no_rows_give_a_header(self, suffix, fitted, tmp_path):
        empty, full = (tmp_path / f"{name}{suffix}" for name in ("empty", "full"))
        for path, frame in ((empty, make_table()[:0]), (full, make_table()[:2])):
            frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
        for arguments in (["predict", "--keep", "id"], ["condition", "--given", "a=@a"]):
            command, *options = arguments
            one, other = (run(command, fitted[0], p, *options).stdout for p in (empty, full))
            assert one == other.splitlines(keepends=True)[0]
            for path in (empty, full):
                run(command, fitted[0], path, *options, "--out", path.with_suffix(".feather"))
            one, other = (pandas.read_feather(p.with_suffix(".feather")) for p in (empty, full))
            assert list(one.columns) == list(other.columns)
            assert len(one) == 0
        assert "no row in which a target" in refused("evaluate", fitted[0], empty)

    @pytest.mark.once
    @pytest.mark.parametrize("name", ["predict", "evaluate"])
    def test_the_table_of_the_fit_is_told(self, name, fitted, table, tmp_path):
        copy = tmp_path / "copy.csv"
        copy.write_bytes(table.read_bytes())
        for path in (table, copy):
            (line,) = run(name, fitted[0], path).stderr.strip().splitlines()
            assert "144 of its 240 rows were trained on" in line
            assert ("so scores for them" if name == "evaluate" else "so predictions") in line
        text = table.read_text()
        copy.write_text(text[:-2] + ("1" if text[-2] != "1" else "2") + "\n")  # as long
        assert copy.stat().st_size == table.stat().st_size
        assert run(name, fitted[0], copy).stderr == ""

    @pytest.mark.skipif(os.name != "posix", reason="pipes of Unix")
    @pytest.mark.parametrize(
        ("name", "rows"),
        [
            ("predict", 3000),
            ("evaluate", 240),
            pytest.param("predict", 2, marks=pytest.mark.full),
            pytest.param("report", 0, marks=pytest.mark.full),
        ],
    )
    @pytest.mark.once
    @pytest.mark.slow
    def test_a_reader_that_ends_is_no_error(self, name, rows, fitted, tmp_path):
        pandas.concat([make_table()] * (rows // 240 + 1))[:rows].to_csv(tmp_path / "t.csv")
        reader, writer = os.pipe()
        os.close(reader)  # as `| head -0`, and there is no race
        table = [] if name == "report" else [tmp_path / "t.csv"]
        arguments = [str(argument) for argument in (name, fitted[0], *table)]
        code = "from keras_mvn_cli.main import main; main()"
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], stdout=writer, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        assert (result.returncode, result.stderr) == (141, "")

    @pytest.mark.once
    def test_other_refusals(self, fitted, table, tmp_path):
        assert "no fit.json" in refused("predict", tmp_path, table)
        assert "expected a file" in refused(
            "predict", fitted[0], table, "--out", tmp_path / "p.doc"
        )
        assert "is a folder" in refused("predict", fitted[0], table, "--out", _folder(tmp_path))
        nowhere = tmp_path / "no/p.csv"
        assert "No such file" in refused("predict", fitted[0], table, "--out", nowhere)
        assert "no column" in refused("predict", fitted[0], table, "--keep", "what")


def _folder(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    return tmp_path / "folder.csv"


class TestEvaluate:
    def test_on_the_test_rows_gives_the_metrics_of_fit(self, fitted, tmp_path):
        out, _ = fitted
        make_table().iloc[test_rows_of(out)[0]].to_csv(tmp_path / "test.csv", index=False)
        found = json.loads(run("evaluate", out, tmp_path / "test.csv", "--json").stdout)
        metrics = json.loads((out / "metrics.json").read_text())["test"]["model"]
        for name, score in metrics["scores"].items():
            assert found["scores"][name]["mean"] == pytest.approx(score["mean"], rel=1e-4), name

    @pytest.mark.once
    def test_prints_a_table(self, fitted, table):
        assert "energy_score" in run("evaluate", fitted[0], table).output

    @pytest.mark.once
    def test_needs_targets(self, fitted, tmp_path):
        make_table().drop(columns="b").to_csv(tmp_path / "t.csv", index=False)
        assert "the column 'b' is missing" in refused("evaluate", fitted[0], tmp_path / "t.csv")
        make_table().assign(a=None, b=None, c=None).to_csv(tmp_path / "t.csv", index=False)
        assert "no row in which a target" in refused("evaluate", fitted[0], tmp_path / "t.csv")


class TestCondition:
    def test_is_the_textbook_formula(self, fitted, table, tmp_path):
        out, _ = fitted
        rows, y = test_rows_of(out)
        arguments = ["condition", out, table, "--given", "a=0.3", "--given", "b=@b"]
        run(*arguments, "--out", tmp_path / "p.csv")
        found = pandas.read_csv(tmp_path / "p.csv").iloc[rows].reset_index(drop=True)
        assert list(found.columns) == ["c_mean", "c_stddev", "c_lower", "c_upper"]
        normal = MultivariateNormal.load(out / "test/model.npz")
        for i in range(len(rows)):
            known = [0] if np.isnan(y[i, 1]) else [0, 1]
            cov = normal.covariance[i]
            gain = cov[2, known] @ np.linalg.inv(cov[np.ix_(known, known)])
            values = np.array([0.3, y[i, 1]])[known]
            mean = normal.mean[i, 2] + gain @ (values - normal.mean[i, known])
            variance = cov[2, 2] - gain @ cov[known, 2]
            assert found["c_mean"][i] == pytest.approx(mean, rel=1e-4, abs=1e-5)
            assert found["c_stddev"][i] == pytest.approx(np.sqrt(variance), rel=1e-4)

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("given", "match"),
        [
            (["d=1"], "one of the targets a, b, c"),
            (["a"], "expected TARGET=VALUE"),
            (["a=x"], "'x' is not a number"),
            (["a=nan"], "must be finite"),
            (["a=@zzz"], "no column 'zzz'"),
            (["a=1", "a=2"], "given before"),
            (["a=1", "b=2", "c=3"], "nothing is left"),
            (["a=1,b=2,c=3"], "nothing is left"),
            (["a=1,d=2"], "repeat --given"),
            (["d=2,a=1"], "repeat --given"),
            (["a=1,5"], "'1,5' is not a number"),
        ],
    )
    def test_refusals(self, fitted, table, given, match):
        options = [word for entry in given for word in ("--given", entry)]
        assert match in refused("condition", fitted[0], table, *options)

    @pytest.mark.once
    def test_commas_are_as_good(self, fitted, table):
        one = run("condition", fitted[0], table, "--given", "a=0.3,b=@b").stdout
        assert (
            one == run("condition", fitted[0], table, "--given", "a=0.3", "--given", "b=@b").stdout
        )

    @pytest.mark.once
    def test_names_with_commas(self, table):
        opened = open_table(table)
        assert parsed(["x,a=1"], ["a", "x,a"], opened).numbers == {"x,a": 1.0}
        known = parsed(["x,a=1, a=@size"], ["a", "x,a", "c"], opened)
        assert (known.numbers, known.sources) == ({"x,a": 1.0}, {"a": "size"})


class TestReportAndExport:
    def test_report_is_written_again_without_the_table(self, fitted):
        out, _ = fitted
        before = (out / "report.html").read_text()
        for name in ("report.html", "report.md"):
            (out / name).unlink()
        run("report", out)
        assert (out / "report.html").read_text() == before
        assert "energy" in (out / "report.md").read_text().lower()

    @pytest.mark.slow
    @pytest.mark.elsewhere(False)
    def test_exported_files_have_the_calibration(self, fitted, tmp_path):
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        from keras_mvn.tables import Preprocessing, open_table

        out, _ = fitted
        run("export", out, "--out", tmp_path / "m.onnx", "--outputs", "mean,stddev")
        make_table().to_csv(tmp_path / "t.csv", index=False)
        batch = next(open_table(tmp_path / "t.csv").batches())
        x = Preprocessing.load(out / "preprocessing.json").inputs(batch)
        session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
        _, stddev = session.run(None, {session.get_inputs()[0].name: x})
        expected = MultivariateNormal.load(out / "test/model.npz").stddev
        rows = test_rows_of(out)[0]
        seen = seen_in(out, x[rows])
        np.testing.assert_allclose(stddev[rows][seen], expected[seen], rtol=1e-4)


@pytest.mark.once
class TestRefusedTables:
    """Each of these is one line and exit code 2, and leaves nothing."""

    def line(self, tmp_path, text, targets="a,b", name="t.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        line = refused("fit", path, "--targets", targets, "--out", tmp_path / "fit", *QUICK)
        assert sorted(p.name for p in tmp_path.iterdir()) == [name]
        return line

    def text(self, **columns):
        frame = make_table(60).assign(**columns)
        return frame.to_csv(index=False)

    def test_files(self, tmp_path):
        assert "is empty" in self.line(tmp_path, "")
        assert "no rows" in self.line(tmp_path, "a,b,x\n")
        assert "has 1 row" in self.line(tmp_path, "a,b,x\n1,2,3\n")
        assert "--separator ';'" in self.line(tmp_path, self.text().replace(",", ";"))
        assert "line 3" in self.line(tmp_path, "a,b,x\n1,2,3\n1,2\n")
        assert "'x'" in self.line(tmp_path, "a,b,x,x\n1,2,3,4\n")
        assert "2 more" not in self.line(tmp_path, "a,b\n" + "1,2\n2,3\n" * 30)

    def test_targets(self, tmp_path):
        assert "'b' must hold numbers; found 'hot' in line 2" in self.line(
            tmp_path, self.text(b="hot")
        )
        assert "'b' is always 4" in self.line(tmp_path, self.text(b=4))
        assert "'b' is missing in every row" in self.line(tmp_path, self.text(b=None))
        assert "infinite" in self.line(tmp_path, self.text(b=np.inf))
        assert "infinite" in self.line(tmp_path, self.text(size=np.inf))
        assert "no column 'd'" in self.line(tmp_path, self.text(), targets="a,d")
        assert "once" in self.line(tmp_path, self.text(), targets="a,a")

    def test_ten_thousand_columns(self, tmp_path):
        names = ",".join(f"x{i}" for i in range(10_000))
        rows = "\n".join(",".join(["1"] * 10_002) for _ in range(30))
        assert "10000 columns" in self.line(tmp_path, f"a,b,{names}\n{rows}\n")

    def test_a_mark_at_the_beginning_is_no_trouble(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_bytes(make_table()[["a", "b", "size"]].to_csv(index=False).encode("utf-8-sig"))
        run("fit", path, "--targets", "a,b", "--out", tmp_path / "fit", *QUICK, "--no-baselines")

    def test_places(self, table, tmp_path):
        out = tmp_path / "fit"
        assert "No such file" in refused("fit", tmp_path / "no.csv", "--targets", "a", "--out", out)
        assert "Is a directory" in refused("fit", tmp_path, "--targets", "a", "--out", out)
        (tmp_path / "file").write_text("")
        under = tmp_path / "file/fit"
        assert "not a directory" in refused("fit", table, "--targets", "a", "--out", under, *QUICK)
        line = refused("fit", table, "--targets", "a", "--out", tmp_path / "file", *QUICK)
        assert "exists" in line
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    def test_places_without_a_name(self, fitted, table, tmp_path, monkeypatch):
        below = tmp_path / "below"
        below.mkdir()
        monkeypatch.chdir(below)
        for here in (".", below, "../below"):
            assert "the folder you are in" in refused("fit", table, "--targets", "a", "--out", here)
        for here in (".", "..", "../below"):
            assert "not a directory made by" in refused("predict", here, table)
            assert "not a directory made by" in refused("report", here)
        out = tmp_path / "new" / "x" / ".."
        run("fit", table, "--targets", "a,b", "--out", out, *QUICK, "--no-baselines")
        assert (tmp_path / "new" / "fit.json").is_file()
        monkeypatch.chdir(fitted[0])
        assert run("predict", ".", table).stdout

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            (["--hidden", "64,x"], "--hidden"),
            (["--as", "size"], "COLUMN=KIND"),
            (["--as", "size=colour"], "expected one of"),
            (["--separator", "ab"], "--separator"),
            (["--group", "patient", "--time", "day"], "cannot be combined"),
            (["--as", "size=date"], "its cells are numbers from"),
            (["--as", "a=date"], "'a' is a target"),
        ],
    )
    def test_options(self, table, tmp_path, options, match):
        line = refused("fit", table, "--targets", "a", "--out", tmp_path / "fit", *options)
        assert match in line
        assert not list(tmp_path.iterdir())

    def test_usage_errors_of_click_have_the_same_code(self, table, tmp_path):
        arguments = ["fit", table, "--targets", "a", "--out", tmp_path / "fit"]
        assert "auto, cholesky" in run(*arguments, "--covariance", "full", code=2).stderr
        assert "low_rank" in run(*arguments, "--covariance", "banded:x", code=2).stderr
        run("fit", code=2)
        for option in ("--learning-rate", "--dropout", "--time-budget"):
            for number in ("nan", "inf"):
                assert "Invalid value" in run(*arguments, option, number, code=2).stderr


@pytest.mark.once
class TestDirectories:
    def test_an_earlier_fit_is_replaced_only_when_asked(self, table, tmp_path):
        out = tmp_path / "fit"
        arguments = ["fit", table, "--targets", "a", "--out", out, *QUICK, "--no-baselines"]
        run(*arguments)
        made = (out / "fit.json").read_text()
        assert "--overwrite" in refused(*arguments)
        assert (out / "fit.json").read_text() == made
        run(*arguments, "--overwrite", "--seed", 1)
        assert json.loads((out / "fit.json").read_text())["seed"] == 1
        assert [p.name for p in tmp_path.iterdir()] == ["fit"]

    def test_what_is_no_fit_is_never_replaced(self, table, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/data").write_text("mine")
        arguments = ["fit", table, "--targets", "a", "--out", tmp_path / "precious", *QUICK]
        assert "not a fit directory" in refused(*arguments, "--overwrite")
        assert (tmp_path / "precious/data").read_text() == "mine"


SCRIPT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs tests with &
from keras_mvn_cli._group import command
from keras_mvn_cli.fitting import networks as _networks

class Signalled(_networks._Progress):
    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if epoch == {epoch}:
            os.kill(os.getpid(), signal.{signal})

_networks._Progress = Signalled
command(sys.argv[1:])
"""


def in_a_process(signal, epoch, *arguments):
    code = SCRIPT.format(signal=signal, epoch=epoch)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


@pytest.mark.slow
class TestSignals:
    # TensorFlow compiles every network anew.
    networks = (
        ["--cv", "none", "--embedding", "none", "--mean", "none"]
        if ON_TENSORFLOW
        else ["--cv", 3, "--embedding", "none"]
    )

    def arguments(self, table, out):
        return ["fit", table, "--targets", "a,b,c", "--out", out, "--epochs", 8, "--hidden", 8,
                "--covariance", "cholesky", "--members", 1, "--tails", "normal", "--no-baselines",
                *self.networks]  # fmt: skip

    def test_a_killed_fit_goes_on_where_it_was(self, table, tmp_path):
        out = tmp_path / "killed"
        result = in_a_process("SIGKILL", 4, *self.arguments(table, out))
        assert result.returncode == -9
        assert not out.exists()
        assert "--resume" in refused(*self.arguments(table, out))
        assert "--resume" in refused("predict", out, table)
        changed = [*self.arguments(table, out), "--resume", "--seed", 5]
        assert "other values of seed;" in refused(*changed)

        begun = out.with_name("killed.partial") / "work/request.json"
        os.utime(begun, (begun.stat().st_mtime - 5000,) * 2)
        printed = run(*self.arguments(table, out), "--resume").output
        assert 5000 < json.loads((out / "fit.json").read_text())["seconds"] < 6000
        assert "resuming at epoch 5" in printed
        run(*self.arguments(table, tmp_path / "whole"))
        names = ("history.csv", "calibration.json", "preprocessing.json")
        for name in names:
            assert (out / name).read_text() == (tmp_path / "whole" / name).read_text(), name
        one, other = (
            MultivariateNormal.load(folder / "test/model.npz")
            for folder in (out, tmp_path / "whole")
        )
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5, atol=1e-6)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "whole"]

    @pytest.mark.once
    def test_a_table_that_changed_is_not_gone_on_with(self, tmp_path):
        path = tmp_path / "t.csv"
        make_table().to_csv(path, index=False)
        arguments = ["fit", path, "--targets", "a,b,c", "--out", tmp_path / "fit", *QUICK]
        arguments += ["--no-baselines"]
        assert in_a_process("SIGKILL", 1, *arguments).returncode == -9
        make_table(seed=1).to_csv(path, index=False)
        line = refused(*arguments, "--resume")
        assert "has changed" in line
        run(*arguments, "--overwrite")

    def test_control_c_saves_the_best_so_far(self, table, tmp_path):
        out = tmp_path / "fit"
        result = in_a_process("SIGINT", 3, *self.arguments(table, out))
        assert result.returncode == 130, result.stderr
        assert "Traceback" not in result.stderr
        assert "stopping after this step" in result.stderr
        about = json.loads((out / "fit.json").read_text())
        assert about["interrupted"]
        history = pandas.read_csv(out / "history.csv")
        epochs = history.groupby("network").size() if "network" in history else [len(history)]
        assert set(epochs) <= {4, 5}
        run("predict", out, table, "--out", tmp_path / "p.csv")
        assert "interrupted by ^C" in (out / "report.html").read_text()

    def test_control_c_before_anything_is_learnt(self, table, tmp_path, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(_networks._Progress, "on_epoch_begin", interrupt)
        result = run(*self.arguments(table, tmp_path / "fit"), code=130)
        assert "interrupted" in result.stderr
        assert not (tmp_path / "fit").exists()


@pytest.mark.once
def test_control_c_while_a_backend_is_imported_is_no_traceback():
    code = """
import sys
from keras_mvn_cli import backends
from keras_mvn_cli.main import main

def interrupted():
    raise KeyboardInterrupt

backends.load_library = interrupted
sys.argv[1:] = ["info"]
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (130, "keras-mvn: interrupted\n")


MEMORY = """
import sys, threading, time
import numpy as np
from click.testing import CliRunner
from keras_mvn_cli._group import command

def private():
    # Pages of mapped files can be taken away at any time; what counts is what cannot.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("RssAnon")) * 1024

def invoke(*arguments):
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output

small, large, folder = sys.argv[1:]
options = ["--targets", "a,b", "--epochs", "1", "--hidden", "8", "--covariance", "cholesky"]
options += ["--members", "1", "--tails", "normal", "--cv", "none", "--embedding", "none"]
options += ["--mean", "none", "--no-baselines"]
invoke("fit", small, *options, "--out", folder + "/small")   # whatever is loaded once
invoke("predict", folder + "/small", small, "--out", folder + "/p.parquet")
before, peak, over = private(), 0, False

def watch():
    global peak
    while not over:
        peak = max(peak, private())
        time.sleep(0.01)

thread = threading.Thread(target=watch, daemon=True)
thread.start()
invoke("fit", large, *options, "--out", folder + "/large")
fitted, peak = peak, 0
invoke("predict", folder + "/large", large, "--out", folder + "/p.parquet")
over = True
thread.join()
print((fitted - before) // 2**20, (peak - before) // 2**20)
"""


ALLOWED = 240
"""MiB: blocks and samples, and 20 000 test rows; not the table."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")
@pytest.mark.once  # pandas and NumPy; minutes elsewhere
def test_a_table_need_not_fit_in_memory(tmp_path, rng):
    import pyarrow
    from pyarrow import csv

    def write(name, n):
        columns = {f"x{i}": rng.normal(size=n) for i in range(20)}
        columns |= {"a": columns["x0"] + rng.normal(size=n), "b": rng.normal(size=n)}
        csv.write_csv(pyarrow.table(columns), tmp_path / name)
        return tmp_path / name

    small, large = write("small.csv", 2000), write("large.csv", 720_000)
    size = large.stat().st_size / 2**20
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, small, large, tmp_path], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    fitting, predicting = map(int, result.stdout.split()[-2:])
    assert size > 1.2 * ALLOWED
    assert fitting < ALLOWED
    assert predicting < ALLOWED


@pytest.mark.once
class TestHelp:
    def test_exit_codes_are_documented(self):
        text = run("--help").output
        for code in ("0 ", "1 ", "2 ", "130", "141"):
            assert f"\n    {code}" in text
        for name in ("fit", "predict", "evaluate", "condition", "report", "export", "demo", "info"):
            assert name in text

    @pytest.mark.parametrize("name", ["fit", "predict", "evaluate", "condition", "export"])
    def test_commands_teach_by_examples(self, name):
        text = run(name, "--help").output
        assert "Examples:" in text
        assert f"keras-mvn {name} " in text

    @pytest.mark.slow
    def test_it_imports_nothing_that_takes_long(self):
        code = (
            "import contextlib, io, sys\n"
            "from keras_mvn_cli.main import main\n"
            "heavy = ('keras', 'jax', 'tensorflow', 'torch', 'numpy', 'pandas', 'pyarrow',"
            " 'sklearn', 'scipy', 'matplotlib')\n"
            "lines = sys.argv[1:]\n"
            "for line in lines:\n"
            "    sys.argv = ['keras-mvn', *line.split()]\n"
            "    said = io.StringIO()\n"
            "    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):\n"
            "        try: main()\n"
            "        except SystemExit as end: code = end.code\n"
            "    print(code, [name for name in heavy if name in sys.modules],"
            " said.getvalue().split()[:2])\n"
        )
        lines = {
            "--help": "0 [] ['Usage:', 'keras-mvn']",
            "--version": "0 [] ['keras-mvn,', 'version']",
            "fit --help": "0 [] ['Usage:', 'keras-mvn']",
            "fit --nonsense": "2 [] ['Usage:', 'keras-mvn']",
            "nonsense": "2 [] ['Usage:', 'keras-mvn']",
            "fit nowhere.csv --targets a --out fit": "2 [] ['keras-mvn:', 'nowhere.csv:']",
            "predict nowhere nowhere.csv": "2 [] ['keras-mvn:', 'nowhere']",
        }
        result = subprocess.run(
            [sys.executable, "-c", code, *lines], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines() == list(lines.values())
