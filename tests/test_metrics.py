"""Metrics: streaming values against NumPy, weights, masks, saving, direction."""

import json

import keras
import numpy as np
import pytest
import scipy.stats

import keras_mvn as kmvn
from differentiation import numpy, precision, tensor
from keras_mvn import metrics
from predictions import oracle_nll, packed
from processes import run_script

D = 3
ALL = [
    metrics.NegativeLogLikelihood,
    metrics.RootMeanSquaredError,
    metrics.Coverage,
    metrics.CoverageError,
    metrics.MeanHalfLogDet,
]


def expected(cls, y, y_pred, weight):
    normal = kmvn.MultivariateNormal.from_prediction(y_pred)
    if cls is metrics.RootMeanSquaredError:
        square = ((y - y_pred[:, :D]) ** 2).mean(-1)
        return np.sqrt(np.average(square, weights=weight))
    if cls is metrics.NegativeLogLikelihood:
        return np.average(oracle_nll("cholesky", y, y_pred), weights=weight)
    if cls is metrics.MeanHalfLogDet:
        log_det = np.linalg.slogdet(normal.covariance)[1]
        return np.average(0.5 * log_det, weights=weight)
    r = y - normal.mean
    squared = np.einsum("ni,nij,nj->n", r, np.linalg.inv(normal.covariance), r)
    coverage = np.average(squared <= scipy.stats.chi2.ppf(0.9, D), weights=weight)
    return coverage if cls is metrics.Coverage else abs(coverage - 0.9)


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.__name__)
class TestEvery:
    def batches(self, rng):
        # Four times the residual scale, so that coverage is neither 0 nor 1.
        return [(2 * rng.normal(size=(n, D)), packed("cholesky", n, rng)) for n in (5, 1, 8)]

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.elsewhere(weighted=[True])
    def test_streaming(self, cls, weighted, rng):
        metric = cls()
        batches = self.batches(rng)
        weights = [rng.uniform(0.1, 2, len(y)) if weighted else None for y, _ in batches]
        for (y, y_pred), weight in zip(batches, weights, strict=True):
            metric.update_state(y, tensor(y_pred), weight)
        y, y_pred = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        weight = np.concatenate(weights) if weighted else np.ones(len(y))
        assert float(metric.result()) == pytest.approx(expected(cls, y, y_pred, weight), rel=1e-4)
        metric.reset_state()
        assert float(metric.result()) == pytest.approx(0.9 if cls is metrics.CoverageError else 0.0)

    def test_rows_of_weight_zero_may_be_nan(self, cls, rng):
        (y, y_pred), *_ = self.batches(rng)
        y[1] = np.nan
        kept = [0, 2, 3, 4]
        metric = cls()
        metric.update_state(y, tensor(y_pred), np.array([1.0, 0.0, 1.0, 1.0, 1.0]))
        assert float(metric.result()) == pytest.approx(
            expected(cls, y[kept], y_pred[kept], np.ones(4)), rel=1e-4
        )

    def test_masked_steps_do_not_count(self, cls, rng):
        from keras.src.backend.common.masking import set_keras_mask

        y, y_pred = 2 * rng.normal(size=(4, D)), packed("cholesky", 4, rng)
        prediction = tensor(y_pred.reshape(2, 2, -1))
        set_keras_mask(prediction, tensor([[True, False], [True, True]], "bool"))
        metric = cls()
        metric.update_state(y.reshape(2, 2, D), prediction)
        kept = [0, 2, 3]
        assert float(metric.result()) == pytest.approx(
            expected(cls, y[kept], y_pred[kept], np.ones(3)), rel=1e-4
        )

    def test_an_empty_batch_changes_nothing(self, cls, rng):
        metric = cls()
        y, y_pred = rng.normal(size=(5, D)), packed("cholesky", 5, rng)
        metric.update_state(y, tensor(y_pred))
        before = float(metric.result())
        metric.update_state(np.zeros((0, D)), tensor(np.zeros((0, 9))))
        assert float(metric.result()) == before

    def test_lists_are_arrays(self, cls, rng):
        y, y_pred = rng.normal(size=(5, D)), packed("cholesky", 5, rng)
        metrics_ = [cls(), cls()]
        metrics_[0].update_state(y.tolist(), y_pred.tolist())
        metrics_[1].update_state(y, tensor(y_pred))
        assert float(metrics_[0].result()) == pytest.approx(float(metrics_[1].result()), rel=1e-5)

    def test_shapes_are_checked(self, cls, rng):
        with pytest.raises(ValueError, match=cls.__name__):
            cls().update_state(np.zeros((5, 1)), tensor(packed("cholesky", 5, rng)))

    def test_every_argument_survives_saving(self, cls):
        with precision("float64"):
            self.check_every_argument(cls)

    def check_every_argument(self, cls):
        changed = {"covariance": "symmetric", "from_raw": True, "layout": "stacked",
                   "name": "mine", "dtype": "float64"}  # fmt: skip
        if cls in (metrics.Coverage, metrics.CoverageError):
            changed["level"] = 0.5
        metric = cls(**changed)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == metric.get_config()
        default = cls().get_config()
        assert all(again.get_config()[key] != default[key] for key in changed)

    def test_those_that_have_a_better_say_so(self, cls):
        undirected = cls in (metrics.Coverage, metrics.MeanHalfLogDet)
        assert getattr(cls(), "_direction", None) == (None if undirected else "down")


class TestRootMeanSquaredError:
    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    def test_units_at_the_ends_of_float32(self, unit, rng):
        y, y_pred = rng.normal(size=(6, D)), packed("cholesky", 6, rng)
        value = expected(metrics.RootMeanSquaredError, y, y_pred, np.ones(6))
        y_pred[:, : 2 * D] *= unit
        metric = metrics.RootMeanSquaredError()
        for rows in (slice(0, 2), slice(2, 6)):
            metric.update_state(y[rows] * unit, tensor(y_pred[rows]))
        assert float(metric.result()) / unit == pytest.approx(value, rel=1e-4)

    @pytest.mark.parametrize(
        ("dtype", "tiny", "huge"), [("float32", 1e-30, 1e30), ("float64", 1e-200, 1e200)]
    )
    @pytest.mark.parametrize("sizes", [("tiny",), ("tiny", 1.0), (1.0, "huge"), ("huge", "tiny")])
    def test_errors_of_very_different_sizes(self, sizes, dtype, tiny, huge, rng):
        if dtype == "float64" and keras.backend.backend() == "torch":
            pytest.skip("Keras' divide_no_nan turns float64 into float32")
        sizes = [{"tiny": tiny, "huge": huge}.get(size, size) for size in sizes]
        error = rng.normal(size=(len(sizes), 6, 1)) * np.reshape(sizes, (-1, 1, 1))
        expected = float(np.sqrt(np.mean(error.astype(np.longdouble) ** 2)))
        for batches in (error, error[::-1]):
            with precision(dtype):
                metric = metrics.RootMeanSquaredError("diagonal", dtype=dtype)
                for batch in batches:
                    metric.update_state(tensor(batch, dtype), tensor([[0.0, 1.0]] * 6, dtype))
                assert float(metric.result()) / expected == pytest.approx(1.0, rel=1e-5)

    def test_a_perfect_prediction_is_zero(self):
        metric = metrics.RootMeanSquaredError()
        metric.update_state(np.ones((2, 1)), np.array([[1.0, 1.0], [1.0, 1.0]]))
        assert float(metric.result()) == 0.0


class TestCoverage:
    @pytest.mark.parametrize("level", [0.0, 1.0, 90, float("nan"), "cholesky"])
    @pytest.mark.parametrize("cls", [metrics.Coverage, metrics.CoverageError])
    def test_the_level_is_a_probability(self, cls, level):
        with pytest.raises(ValueError, match="level"):
            cls(level)

    def test_the_name_tells_the_level(self):
        assert metrics.Coverage(0.5).name == "coverage_50"
        assert metrics.CoverageError(0.975).name == "coverage_error_97.5"

    def test_nan_is_neither_inside_nor_outside(self, rng):
        y = rng.normal(size=(4, D))
        y[0, 1] = np.nan
        metric = metrics.Coverage()
        metric.update_state(y, tensor(packed("cholesky", 4, rng)))
        assert np.isnan(numpy(metric.result()))


class TestStudentT:
    """Per-row ν, gaps and weights, against SciPy."""

    def rows(self, rng, n=300):
        y_pred = np.concatenate(
            [packed("cholesky", n, rng), rng.choice([2.1, 3.0, 8.0, 1e3], size=(n, 1))], axis=1
        )
        normal = kmvn.MultivariateNormal.from_prediction(y_pred[:, :-1])
        y = normal.mean + (normal.scale_tril @ rng.standard_t(2, size=(n, D, 1)))[..., 0]
        observed = rng.random((n, D)) < 0.7
        return np.where(observed, y, np.nan), y_pred, normal, rng.uniform(0.1, 2.0, n)

    def test_the_density_and_the_region_are_those_of_the_t(self, rng):
        y, y_pred, normal, weight = self.rows(rng)
        density, inside, counts = [], [], []
        for value, mean, sigma, nu in zip(
            y, normal.mean, normal.covariance, y_pred[:, -1], strict=True
        ):
            o = ~np.isnan(value)
            if not o.any():
                density, inside, counts = [*density, 0.0], [*inside, 0.0], [*counts, 0.0]
                continue
            r, block = (value - mean)[o], sigma[np.ix_(o, o)]
            q = r @ np.linalg.solve(block, r)
            density.append(-scipy.stats.multivariate_t(shape=block, df=nu).logpdf(r))
            inside.append(q <= o.sum() * scipy.stats.f.ppf(0.8, o.sum(), nu))
            counts.append(1.0)
        weights = weight * counts
        coverage = np.average(inside, weights=weights)
        for cls, arguments, wanted in (
            (metrics.NegativeLogLikelihood, {}, np.average(density, weights=weights)),
            (metrics.Coverage, {"level": 0.8}, coverage),
            (metrics.CoverageError, {"level": 0.8}, abs(coverage - 0.8)),
        ):
            metric = cls(**arguments, layout="student_t", missing="marginalize")
            for rows in (slice(0, 100), slice(100, None)):
                metric.update_state(y[rows], tensor(y_pred[rows]), weight[rows])
            assert float(metric.result()) == pytest.approx(wanted, rel=1e-4, abs=1e-5), cls

    def test_the_log_volume_is_that_of_the_covariance(self, rng):
        y, y_pred, normal, _ = self.rows(rng)
        metric = metrics.MeanHalfLogDet(layout="student_t")
        metric.update_state(np.nan_to_num(y), tensor(y_pred))
        factor = y_pred[:, -1] / (y_pred[:, -1] - 2.0)
        wanted = 0.5 * (np.linalg.slogdet(normal.covariance)[1] + D * np.log(factor)).mean()
        assert float(metric.result()) == pytest.approx(wanted, rel=1e-4)

    def test_a_heads_t_is_refused_without_its_layout(self, rng):
        head = kmvn.layers.MultivariateNormalHead(D, degrees_of_freedom="constant")
        y_pred = head(tensor(rng.normal(size=(2, 4))))
        for cls in ALL:
            with pytest.raises(ValueError, match="layout='student_t'"):
                cls().update_state(np.zeros((2, D)), y_pred)


REPLICAS = """
import json, sys
import tensorflow as tf
devices = [tf.config.LogicalDeviceConfiguration()] * 4
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
import keras, numpy as np
import keras_mvn as kmvn

data = np.load(sys.argv[1])
x, y = data["x"], data["y"]
found = []
for replicas in (1, 2, 4):
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),  # of one size per process otherwise
    )
    with strategy.scope():
        keras.utils.set_random_seed(0)
        head = kmvn.layers.MultivariateNormalHead(3, shrinkage=1.0)
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), head])
        names = [n for n in kmvn.metrics.__all__ if n != "CovarianceMetric"]
        metrics = [getattr(kmvn.metrics, n)(name=n) for n in names]
        loss = kmvn.losses.NegativeLogLikelihood()
        model.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=metrics)
    y_pred = np.array(model(x))
    values = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    history = {}
    if replicas < 4:
        monitor = kmvn.callbacks.CovarianceMonitor(x, y)
        history = model.fit(
            x[:16], y[:16], batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=[monitor]
        ).history
    found.append([values, y_pred.tolist(), history])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_replicas_change_nothing(rng, tmp_path):
    """22 rows in batches of 8: replicas get different numbers of rows, and one gets none."""
    x = rng.normal(size=(22, 2)).astype("float32")
    y = (rng.normal(size=(22, D)) * np.exp(rng.normal(size=(22, 1)))).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    runs = json.loads(run_script(REPLICAS, str(tmp_path / "data.npz")).splitlines()[-1])
    for values, y_pred, _ in runs:
        assert set(values) == {"loss", *(cls.__name__ for cls in ALL)}
        for cls in ALL:
            true = expected(cls, y, np.array(y_pred), np.ones(len(y)))
            assert values[cls.__name__] == pytest.approx(true, rel=1e-4), cls
    (_, _, one), (_, _, two), _ = runs
    assert one.keys() == two.keys() > {"loss", "cov_squared_z"}
    for name, curve in one.items():
        assert two[name] == pytest.approx(curve, rel=1e-4), name
