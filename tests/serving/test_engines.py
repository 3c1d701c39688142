"""`BatchPredictor` in engines that run it in other processes: Ray Data and Dask."""

import os
import sys

import numpy as np
import pandas
import pytest

from commands import run
from keras_mvn.serving import BatchPredictor

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

QUICK = ["--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal"]
QUICK += ["--embedding", "none", "--mean", "ridge", "--cv", "none", "--no-baselines"]


@pytest.fixture(scope="module")
def hours(tmp_path_factory):
    """A model, and its table as a dataset of several Parquet files, with gaps."""
    folder = tmp_path_factory.mktemp("engines")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.normal(size=(203, 4)).round(3), columns=list("uvab"))
    frame = frame.assign(station=np.array(["JFK", "LGA"])[rng.integers(2, size=203)])
    frame.loc[::7, "u"] = np.nan
    frame["row"] = np.arange(len(frame))
    frame.drop(columns="row").to_csv(folder / "t.csv", index=False)
    run("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "fit", *QUICK)
    (folder / "hours").mkdir()
    for i, part in enumerate(np.array_split(np.arange(len(frame)), 4)):
        frame.iloc[part].to_parquet(folder / "hours" / f"{i}.parquet", index=False)
    return folder, frame


@pytest.fixture(scope="module")
def predictor(hours):
    return BatchPredictor(hours[0] / "fit", keep={"row": "int64", "station": "string"})


def assert_same(found, predictor, frame):
    expected = predictor(frame).set_index("row").sort_index()
    found = found.set_index("row").sort_index()
    assert list(found.columns) == list(expected.columns)
    assert (found["station"].astype(str) == expected["station"].astype(str)).all()
    numbers = [name for name in expected.columns if name != "station"]
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-6)


def read_back(folder):
    files = sorted(folder.rglob("*.parquet"))
    assert files
    return pandas.concat([pandas.read_parquet(file) for file in files])


def test_dask_in_two_processes(hours, predictor, tmp_path):
    frame_of = pytest.importorskip("dask.dataframe")
    distributed = pytest.importorskip("dask.distributed")
    folder, frame = hours
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster):
        dataset = frame_of.read_parquet(folder / "hours")
        assert dataset.npartitions > 1
        found = dataset.map_partitions(predictor, meta=predictor.meta)
        found.to_parquet(tmp_path / "predictions")
    assert_same(read_back(tmp_path / "predictions"), predictor, frame)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def test_ray_in_two_workers(ray, hours, predictor, tmp_path):
    folder, frame = hours
    dataset = ray.data.read_parquet(str(folder / "hours"))
    found = dataset.map_batches(predictor, batch_format="pandas", batch_size=16, concurrency=2)
    found.write_parquet(str(tmp_path / "predictions"))
    assert_same(read_back(tmp_path / "predictions"), predictor, frame)


def test_a_ray_worker_that_lacks_a_column_says_so(ray, predictor):
    dataset = ray.data.from_pandas(pandas.DataFrame({"u": [0.1], "row": [1], "station": ["JFK"]}))
    with pytest.raises(Exception, match="'v'"):
        dataset.map_batches(predictor, batch_format="pandas").take_all()
