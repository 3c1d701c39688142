"""`keras-mvn predict` on a folder: a file for each, whole or not at all, resumed."""

import numpy as np
import pandas
import pytest

from commands import refused, run
from keras_mvn_cli import _prediction

pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 1, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal", "--cv",
         "none", "--mean", "none", "--embedding", "none", "--no-baselines"]  # fmt: skip


def table(n, seed):
    rng = np.random.default_rng(seed)
    frame = pandas.DataFrame(rng.normal(size=(n, 4)), columns=["u", "v", "a", "b"])
    frame.insert(0, "key", np.arange(n) + 1000 * seed)
    return frame


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    table(100, 0).to_csv(folder / "t.csv", index=False)
    out = folder / "fit"
    run("fit", folder / "t.csv", "--targets", "a,b", "--drop", "key", "--out", out, *QUICK)
    return out


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    (folder / "year=2024").mkdir(parents=True)
    whole = table(90, 1)
    ends = {"a.parquet": (0, 40), "b.pq": (40, 40), "c.feather": (40, 60),
            "year=2024/d.parquet": (60, 90)}  # fmt: skip
    for name, (first, last) in ends.items():
        rows = whole[first:last]
        rows = rows.reset_index(drop=True)
        write = rows.to_feather if name.endswith("feather") else rows.to_parquet
        write(folder / name)
    (folder / "_SUCCESS").write_text("")
    (folder / "notes.txt").write_text("none")
    return folder, whole


def test_a_file_for_each_in_the_order_of_rows(model, parts, tmp_path):
    folder, whole = parts
    out, single = tmp_path / "out", tmp_path / "p.csv"
    run("predict", model, folder, "--out", out, "--keep", "key")
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert names == {"a.parquet", "b.parquet", "c.feather", "year=2024/d.parquet",
                     "predictions.json"}  # fmt: skip
    found = pandas.concat(
        [pandas.read_parquet(out / "a.parquet"), pandas.read_parquet(out / "b.parquet"),
         pandas.read_feather(out / "c.feather"), pandas.read_parquet(out / "year=2024/d.parquet")],
        ignore_index=True,
    )  # fmt: skip
    whole.to_csv(tmp_path / "whole.csv", index=False)
    run("predict", model, tmp_path / "whole.csv", "--out", single, "--keep", "key")
    pandas.testing.assert_frame_equal(found, pandas.read_csv(single), rtol=1e-5, atol=1e-6)


def test_a_run_that_broke_off_is_resumed(model, parts, tmp_path, monkeypatch):
    folder, _ = parts
    out, predicted = tmp_path / "out", []
    real = _prediction.predict_table

    def until_c(request, data, *others):
        if data.name == "c.feather" and not predicted.count("killed"):
            predicted.append("killed")
            raise KeyboardInterrupt
        predicted.append(data.name)
        return real(request, data, *others)

    monkeypatch.setattr(_prediction, "predict_table", until_c)
    run("predict", model, folder, "--out", out, code=130)
    assert sorted(p.name for p in out.iterdir()) == ["a.parquet", "b.parquet", "predictions.json"]
    before = (out / "a.parquet").stat().st_mtime_ns
    (out / ".c.feather.x1y2").mkdir()  # what a kill -9 leaves
    assert "--resume adds those that lack" in refused("predict", model, folder, "--out", out)
    said = run("predict", model, folder, "--out", out, "--resume").output
    assert "2 of 4 files were there" in said
    assert predicted == ["a.parquet", "b.pq", "killed", "c.feather", "d.parquet"]
    assert (out / "a.parquet").stat().st_mtime_ns == before
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
    other = refused("predict", model, folder, "--out", out, "--resume", "--level", 0.5)
    assert "another model or with other options" in other


def test_refused(model, parts, tmp_path):
    folder, _ = parts
    assert "give --out" in refused("predict", model, folder)
    (tmp_path / "file").write_text("")
    assert "is the folder with the tables" in refused("predict", model, folder, "--out", folder)
    assert "give a folder" in refused("predict", model, folder, "--out", tmp_path / "p.csv")
    assert "is a file" in refused("predict", model, folder, "--out", tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert "is not empty" in refused("predict", model, folder, "--out", tmp_path / "full")
    (tmp_path / "none").mkdir()
    assert "holds no" in refused("predict", model, tmp_path / "none", "--out", tmp_path / "o")
    table(5, 0).to_parquet(folder / "b.parquet")
    two = refused("predict", model, folder, "--out", tmp_path / "two")
    assert "another table has the same name" in two
