"""Predictions for batches: as `keras-mvn predict` gives them, in this process and in others."""

import pickle

import keras
import numpy as np
import pandas
import pyarrow
import pytest

from commands import run
from keras_mvn import MultivariateNormalRegressor
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.serving import BatchPredictor, batch_predictor
from processes import run_script

pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal", "--cv", 3,
         "--mean", "ridge", "--embedding", "none", "--no-baselines"]  # fmt: skip


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    frame = pandas.DataFrame(rng.normal(size=(n, 4)).round(4), columns=["u", "v", "a", "b"])
    frame["color"] = rng.choice(["red", "green"], n)
    frame["id"] = np.arange(n)
    frame.loc[3, "v"] = np.nan
    return frame


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    rows(150).to_csv(folder / "t.csv", index=False)
    run(
        "fit", folder / "t.csv", "--targets", "a,b", "--drop", "id", "--out", folder / "fit", *QUICK
    )
    rows(40, 1).to_csv(folder / "new.csv", index=False)
    run("predict", folder / "fit", folder / "new.csv", "--out", folder / "p.csv", "--keep", "id")
    return folder


@pytest.fixture(scope="module")
def predictor(fitted):
    outputs = ["mean", "stddev", "interval", "correlation"]
    return BatchPredictor(fitted / "fit", outputs, keep={"id": "int64"})


@pytest.fixture(scope="module")
def expected(fitted):
    return pandas.read_csv(fitted / "p.csv")


class TestTables:
    def test_pandas_comes_back_as_the_command_predicts(self, predictor, expected):
        new = rows(40, 1).set_axis(np.arange(40) + 7)
        found = predictor(new)
        pandas.testing.assert_index_equal(found.index, new.index)
        assert set(found) == set(expected)
        pandas.testing.assert_frame_equal(
            found.reset_index(drop=True), expected[list(found)], rtol=1e-5
        )

    def test_other_tables_come_back_as_they_are(self, predictor, expected):
        new = rows(40, 1)
        arrow = pyarrow.Table.from_pandas(new)
        batches = pyarrow.concat_tables([arrow[:10], arrow[10:]])  # in two chunks
        for given in (arrow, batches, batches.to_batches()[0]):
            found = predictor(given)
            assert isinstance(found, pyarrow.Table)
            assert found.schema == predictor.schema
            np.testing.assert_allclose(
                found["a_mean"].to_numpy(), expected["a_mean"][: given.num_rows], rtol=1e-5
            )
        found = predictor({name: new[name].to_numpy() for name in new})
        assert isinstance(found, dict)
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-5)

    def test_no_rows(self, predictor):
        assert len(predictor(rows(40)[:0])) == 0
        assert dict(predictor(rows(40)[:0]).dtypes) == dict(predictor.meta.dtypes)
        assert predictor(pyarrow.Table.from_pandas(rows(40)[:0])).schema == predictor.schema

    def test_batches_are_rows(self, predictor, expected):
        new = rows(40, 1)
        parts = pandas.concat(predictor.iterate([new[:1], new[1:1], new[1:17], new[17:]]))
        pandas.testing.assert_frame_equal(parts, expected[list(parts)], rtol=1e-5)

    def test_refused(self, predictor, fitted, tmp_path):
        with pytest.raises(ValueError, match="lacks 'color'; it has"):
            predictor(rows(40).drop(columns="color"))
        with pytest.raises(ValueError, match=r"keep: the table lacks 'id'"):
            predictor(rows(40).drop(columns="id"))
        with pytest.raises(ValueError, match=r"'u' must hold numbers.*'low'"):
            predictor(rows(40).assign(u="low"))
        with pytest.raises(TypeError, match="received list"):
            predictor([[1.0, 2.0]])
        with pytest.raises(TypeError, match=r"one axis.*shape \(40, 2\)"):
            predictor({**rows(40), "u": np.zeros((40, 2))})
        with pytest.raises(TypeError, match="this Series is none|received Series"):
            predictor(rows(40)["u"])
        kept = BatchPredictor(fitted / "fit", keep=["a_mean"])
        with pytest.raises(ValueError, match="have a column 'a_mean', too"):
            kept(rows(40).assign(a_mean=1.0))
        with pytest.raises(ValueError, match="is not a directory made by"):
            BatchPredictor(tmp_path)
        with pytest.raises(ValueError, match="outputs="):
            BatchPredictor(fitted / "fit", ["median"])
        with pytest.raises(ValueError, match="level"):
            BatchPredictor(fitted / "fit", level=90)
        with pytest.raises(ValueError, match="types of 'id' are unknown"):
            BatchPredictor(fitted / "fit", keep=["id"]).schema  # noqa: B018


class TestOtherProcesses:
    def test_a_copy_needs_neither_the_files_nor_another_load(self, fitted, monkeypatch, expected):
        predictor = BatchPredictor(fitted / "fit")
        monkeypatch.setattr(batch_predictor, "_LOADED", {})
        copies = [pickle.loads(pickle.dumps(predictor)) for _ in range(3)]
        for copy in copies:
            np.testing.assert_allclose(copy(rows(40, 1))["a_mean"], expected["a_mean"], rtol=1e-5)
        assert len(batch_predictor._LOADED) == 1

    def test_another_process(self, fitted, tmp_path, expected):
        content = pickle.dumps(BatchPredictor(fitted / "fit", ["mean"]))
        (tmp_path / "predictor.pkl").write_bytes(content)
        rows(40, 1).to_parquet(tmp_path / "new.parquet")
        run_script(
            "import pickle, pandas\n"
            f"predictor = pickle.loads(open({str(tmp_path / 'predictor.pkl')!r}, 'rb').read())\n"
            f"found = predictor(pandas.read_parquet({str(tmp_path / 'new.parquet')!r}))\n"
            f"found.to_csv({str(tmp_path / 'p.csv')!r}, index=False)\n"
        )
        found = pandas.read_csv(tmp_path / "p.csv")
        pandas.testing.assert_frame_equal(found, expected[["a_mean", "b_mean"]], rtol=1e-5)

    def test_another_version_or_backend_is_one_line(self, fitted, monkeypatch):
        predictor = BatchPredictor(fitted / "fit")
        monkeypatch.setattr(batch_predictor, "_LOADED", {})
        with monkeypatch.context() as patch:
            patch.setattr(batch_predictor, "__version__", "9.9")
            with pytest.raises(RuntimeError, match=r"made by keras-mvn .*, and this process has 9"):
                predictor(rows(5))
        monkeypatch.setattr(keras.backend, "backend", lambda: "other")
        with pytest.warns(RuntimeWarning, match="KERAS_BACKEND=torch for all workers"):
            predictor._check_process()


class TestOtherModels:
    def test_an_estimator_fitted_to_data_frames(self):
        table = rows(60).fillna(0.0)
        model = MultivariateNormalRegressor(
            "cholesky", hidden=(4,), epochs=1, cv=None, mean=None, tails="normal", embedding=None,
            calibration=None,
        ).fit(table[["u", "v"]], table[["a", "b"]])  # fmt: skip
        predictor = BatchPredictor(model, ["mean"])
        found = predictor(table)  # columns that it was not fitted to are ignored
        np.testing.assert_allclose(found, model.predict(table[["u", "v"]]), rtol=1e-6)
        assert list(predictor(table[:0])) == ["a_mean", "b_mean"]

    def test_a_network(self, rng):
        head = MultivariateNormalHead(2, target_names=["a", "b"])
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), head])
        head.adapt(rng.normal(5.0, 2.0, size=(20, 2)))
        x = rng.normal(size=(7, 3)).astype(np.float32)
        predictor = pickle.loads(pickle.dumps(BatchPredictor(network)))
        found = predictor({name: x[:, i] for i, name in enumerate("uvw")})
        answer = head.distribution(network.predict(x, verbose=0))
        np.testing.assert_allclose(found["a_mean"], answer.mean[:, 0], rtol=1e-5)
        np.testing.assert_allclose(found["b_upper"], answer.interval(0.9)[1][:, 1], rtol=1e-5)
        with pytest.raises(ValueError, match="3 inputs, and the table 2 columns"):
            predictor({"u": x[:, 0], "v": x[:, 1]})
        with pytest.raises(ValueError, match="has 0 MultivariateNormalHead layers"):
            BatchPredictor(keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]))
        with pytest.raises(TypeError, match="received dict"):
            BatchPredictor({})
