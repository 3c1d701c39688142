"""The head: adapt, units, every way to put it in a model, saving."""

import json
import warnings

import keras
import numpy as np
import pytest

import keras_mvn as kmvn
from differentiation import numpy, precision, tensor
from keras_mvn import covariances
from keras_mvn.layers import MultivariateNormalHead
from structures import PLAIN

FULL = ["cholesky", "precision_cholesky", "symmetric"]
# n, and λ of shrinkage="auto": 16/n for scales, 16 k/n up to 4 for the k = 3 others
AUTO = [(8, 2.0, 4.0), (16, 1.0, 3.0), (64, 0.25, 0.75), (3200, 0.005, 0.015)]
D = 3


def table(n, rng, d=D, features=2):
    """Inputs and correlated targets in very different units."""
    x = rng.normal(size=(n, features))
    noise = rng.normal(size=(n, d)) @ (np.eye(d) + np.tril(np.ones((d, d)), -1))
    y = x @ rng.normal(size=(features, d)) + noise
    return x, y * np.array([1.0, 1e3, 1e-3, 7.0])[:d] + np.array([5.0, -2e4, 0.0, 1.0])[:d]


def start_at_zero(head):
    """Make the kernels zero: what is left is the origin."""
    head.mean_dense.kernel_initializer = keras.initializers.Zeros()
    head.covariance_dense.kernel_initializer = keras.initializers.Zeros()
    return head


class TestAdapt:
    @pytest.mark.parametrize("name", FULL)
    def test_the_first_prediction_is_the_data(self, name, rng):
        _, y = table(400, rng)
        head = start_at_zero(MultivariateNormalHead(D, name))
        head.adapt(y)
        normal = head.distribution(head(tensor(rng.normal(size=(2, 4)))))
        unit = y.std(0)
        np.testing.assert_allclose((normal.mean - y.mean(0)) / unit, 0, atol=1e-6)
        expected = np.cov(y.T, bias=True) / np.outer(unit, unit)
        np.testing.assert_allclose(
            normal.covariance / np.outer(unit, unit), np.stack([expected] * 2), atol=1e-6
        )

    @pytest.mark.parametrize("name", ["isotropic", "diagonal"])
    def test_diagonal_structures_start_at_the_variances(self, name, rng):
        _, y = table(400, rng)
        head = start_at_zero(MultivariateNormalHead(D, name))
        head.adapt(y)
        normal = head.distribution(head(tensor(np.zeros((1, 4)))))
        np.testing.assert_allclose(normal.stddev[0], y.std(0), rtol=1e-6)

    def test_the_covariance_may_start_at_residuals(self, rng):
        x, y = table(400, rng)
        design = np.column_stack([x, np.ones(len(x))])
        residuals = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        head = start_at_zero(MultivariateNormalHead(D))
        head.adapt(y, residuals=residuals)
        normal = head.distribution(head(tensor(np.zeros((1, 4)))))
        unit = y.std(0)
        np.testing.assert_allclose((normal.mean[0] - y.mean(0)) / unit, 0, atol=1e-6)
        np.testing.assert_allclose(numpy(head.origin_stddev), unit, rtol=1e-6)
        expected = np.cov(residuals.T, bias=True) / np.outer(unit, unit)
        np.testing.assert_allclose(normal.covariance[0] / np.outer(unit, unit), expected, atol=1e-6)

    def test_without_it_the_head_starts_at_standard_normal(self):
        head = start_at_zero(MultivariateNormalHead(D))
        normal = head.distribution(head(tensor(np.ones((1, 4)))))
        np.testing.assert_array_equal(normal.mean, 0.0)
        np.testing.assert_array_equal(normal.covariance[0], np.eye(D))

    def weights(self, data, d=D):
        head = MultivariateNormalHead(d)
        head.adapt(data)
        return [numpy(w) for w in head.weights]

    def test_every_container_gives_the_same(self, rng):
        tf = pytest.importorskip("tensorflow")
        x, y = table(50, rng)
        x, y = x.astype("float32"), y.astype("float32")

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 5

            def __getitem__(self, i):
                return x[10 * i : 10 * i + 10], y[10 * i : 10 * i + 10]

        import pandas
        import torch

        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=16
        )
        expected = self.weights(y)
        for data in (
            y.astype("float64"),
            y.tolist(),
            keras.ops.convert_to_tensor(y),
            y.reshape(5, 10, D),
            pandas.DataFrame(y),
            tf.data.Dataset.from_tensor_slices(y).batch(7),
            tf.data.Dataset.from_tensor_slices(y),
            tf.data.Dataset.from_tensor_slices((x, y)).batch(7),
            tf.data.Dataset.from_tensor_slices((x, y, np.ones(50))).batch(7),
            Batches(),
            loader,
            (y[i : i + 10] for i in range(0, 50, 10)),
            [y[:20], y[20:]],
            [(x[:20], y[:20]), (x[20:], y[20:])],
            [(x.repeat(2, 1)[:, :D], y)],
        ):
            for got, want in zip(self.weights(data), expected, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes are known elsewhere")
    def test_a_dataset_that_does_not_tell_the_number_of_targets(self, rng):
        import tensorflow as tf

        x, y = table(32, rng)
        unknown = tf.TensorSpec((None, None))
        data = tf.data.Dataset.from_generator(
            lambda: zip(x.reshape(4, 8, -1), y.reshape(4, 8, D), strict=True),
            output_signature=(unknown, unknown),
        )
        found = []
        for batches in (
            data.apply(tf.data.experimental.assert_cardinality(4)),
            tf.data.Dataset.from_tensor_slices((x, y)).batch(8),
        ):
            keras.utils.set_random_seed(0)
            model = network(MultivariateNormalHead(D))
            model.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
            found.append(model.fit(batches, verbose=0, shuffle=False).history["loss"][0])
        assert found[0] == pytest.approx(found[1], rel=1e-5)

    def test_nan_means_not_observed(self, rng):
        _, y = table(2000, rng)
        full = self.weights(y)
        holes = np.where(rng.uniform(size=y.shape) < 0.05, np.nan, y)
        mean, stddev, *_ = self.weights(holes)
        np.testing.assert_allclose(mean, np.nanmean(holes, 0), rtol=1e-5)
        np.testing.assert_allclose(stddev, np.nanstd(holes, 0), rtol=1e-5)
        np.testing.assert_allclose(self.weights(holes)[3], full[3], atol=0.2)

    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    def test_units_at_the_ends_of_float32(self, unit, rng):
        _, y = table(100, rng)
        y = (y - y.mean(0)) / y.std(0)
        _, stddev, scale, shape_params, _ = self.weights(y * unit)
        _, stddev1, scale1, shape1, _ = self.weights(y)
        np.testing.assert_allclose(stddev / unit, stddev1, rtol=1e-5)
        np.testing.assert_allclose(scale / unit, scale1, rtol=1e-5)
        np.testing.assert_allclose(shape_params, shape1, rtol=1e-5)

    def test_a_large_offset_costs_no_accuracy(self, rng):
        _, y = table(100, rng)
        y = (y - y.mean(0)) / y.std(0)
        _, stddev, *_ = self.weights(y + 1e5)
        np.testing.assert_allclose(stddev, 1.0, rtol=1e-6)

    def test_constant_targets_are_named_and_training_goes_on(self, rng):
        x, y = table(60, rng)
        y[:, 1] = 3.0
        head = MultivariateNormalHead(D, target_names=["a", "b", "c"])
        with pytest.warns(UserWarning, match=r"constant.*: b\."):
            head.adapt(y)
        assert np.isfinite(fit(head, x, y, epochs=5)).all()

    @pytest.mark.parametrize("kind", ["copy", "sum"])
    @pytest.mark.parametrize("name", FULL)
    def test_collinear_targets_are_named_and_training_goes_on(self, kind, name, rng):
        x, y = table(60, rng)
        y[:, 2] = 5 * y[:, 0] if kind == "copy" else y[:, 0] * 1e3 + y[:, 1]
        head = MultivariateNormalHead(D, name, target_names=["a", "b", "c"])
        match = "collinear: a, c" if kind == "copy" else "collinear: a, b, c"
        with pytest.warns(UserWarning, match=match):
            head.adapt(y)
        curve = fit(head, x, y, epochs=5)
        assert curve[-1] < curve[0]

    @pytest.mark.parametrize("name", ["isotropic", "diagonal"])
    def test_collinear_targets_are_nothing_to_independent_ones(self, name, rng):
        x, y = table(60, rng)
        y[:, 2] = 5 * y[:, 0]
        head = MultivariateNormalHead(D, name)
        head.adapt(y)  # a warning would be an error
        np.testing.assert_allclose(numpy(head.origin_scale), y.std(axis=0), rtol=1e-5)
        curve = fit(head, x, y, epochs=5)
        assert curve[-1] < curve[0]

    def test_fewer_rows_than_targets_warn(self, rng):
        with pytest.warns(UserWarning, match="3 rows are too few to separate 4 targets"):
            self.weights(rng.normal(size=(3, 4)), d=4)

    @pytest.mark.parametrize(
        ("data", "match"),
        [
            (np.zeros((1, D)), r"at least 2 observed rows.*target 0 \(1\)"),
            (np.zeros((0, D)), "at least 2"),
            (np.full((5, D), np.nan), "at least 2"),
            (np.zeros(5), r"shape \(5,\)"),
            (np.zeros((5, 1)), r"event_size=3 expects \(rows, 3\)"),
            (np.zeros((5, 4)), "expects"),
            (np.full((5, D), np.inf), "infinite"),
            (np.full((5, D), 1e39), "beyond float32"),
            (np.arange(15.0).reshape(5, D) * 1e-38, "too small for float32"),
            ((np.zeros((5, 2)), np.zeros((5, D))), "tuple of arrays"),
            (np.full((5, D), "a"), "not a table of numbers"),
        ],
        ids=str,
    )
    def test_bad_targets_are_refused(self, data, match):
        with pytest.raises(ValueError, match=match):
            MultivariateNormalHead(D).adapt(data)

    def test_something_else_is_refused(self):
        with pytest.raises(TypeError, match="adapt received int"):
            MultivariateNormalHead(D).adapt(3)

    def test_names_come_from_a_data_frame(self, rng):
        import pandas

        head = MultivariateNormalHead(2)
        head.adapt(pandas.DataFrame(rng.normal(size=(9, 2)), columns=["co", "no2"]))
        assert head.target_names == ("co", "no2")

    def test_a_frame_that_does_not_fit_leaves_the_head_alone(self, rng):
        import pandas

        frame = pandas.DataFrame(rng.normal(size=(9, 2)), columns=["b", "a"])
        head = MultivariateNormalHead(2, target_names=["a", "b"])
        with pytest.raises(ValueError, match="another order"):
            head.adapt(frame)
        head = MultivariateNormalHead(2)
        with pytest.raises(ValueError, match="at least 2"):
            head.adapt(frame * np.nan)
        with pytest.raises(ValueError, match=r"targets of shape \(9, 4\)"):
            head.adapt(pandas.DataFrame(rng.normal(size=(9, 4)), columns=list("abcd")))
        assert head.target_names is None

    def test_missing_values_of_other_kinds(self, rng):
        import pandas

        y = rng.normal(size=(30, D))
        hidden = rng.uniform(size=y.shape) < 0.1
        expected = self.weights(np.where(hidden, np.nan, y))
        nullable = pandas.DataFrame(np.where(hidden, np.nan, y)).convert_dtypes()
        for data in (np.ma.MaskedArray(np.where(hidden, 1e6, y), hidden), nullable):
            for got, want in zip(self.weights(data), expected, strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-6)


def network(head, features=2):
    return keras.Sequential([keras.Input((features,)), keras.layers.Dense(16, "gelu"), head])


def fit(head, x, y, epochs=3, **compile_arguments):
    model = network(head, x.shape[1])
    model.compile(
        keras.optimizers.Adam(1e-2),
        loss=kmvn.losses.NegativeLogLikelihood(head.covariance),
        **compile_arguments,
    )
    history = model.fit(x, y, epochs=epochs, batch_size=16, verbose=0, shuffle=False)
    return np.array(history.history["loss"])


class TestUnits:
    """Training must be the same whatever the units."""

    @pytest.mark.parametrize("name", PLAIN)
    @pytest.mark.parametrize(
        "factor", [1e-6, 1e3, np.array([1e-6, 1.0, 1e5])], ids=["tiny", "large", "mixed"]
    )
    @pytest.mark.elsewhere(name=["cholesky"])
    @pytest.mark.slow
    def test_the_learning_curve_shifts_by_the_jacobian(self, name, factor, rng):
        x, y = table(64, rng)
        curves = []
        for scaled in (y, y * factor):
            keras.utils.set_random_seed(1)
            head = MultivariateNormalHead(D, name)
            head.adapt(scaled)
            curves.append(fit(head, x, scaled, epochs=6))
        jacobian = np.log(np.broadcast_to(factor, D)).sum()
        np.testing.assert_allclose(curves[1] - jacobian, curves[0], atol=2e-3)
        assert curves[0][-1] < curves[0][0]  # something was learnt


class TestModels:
    @pytest.mark.parametrize(
        ("name", "mode"), [*((name, "compiled") for name in PLAIN), ("cholesky", "eager")]
    )
    @pytest.mark.elsewhere(name=["cholesky"], mode=["compiled"])
    @pytest.mark.slow
    def test_fit_improves_on_the_start(self, name, mode, rng):
        x, y = table(128, rng)
        head = MultivariateNormalHead(D, name)
        head.adapt(y)
        curve = fit(head, x, y, epochs=8, run_eagerly=mode == "eager")
        assert curve[-1] < curve[0] - 0.1

    @pytest.mark.skipif(
        keras.backend.backend() == "torch", reason="minutes of inductor compilation"
    )
    @pytest.mark.parametrize("name", FULL)
    def test_under_xla(self, name, rng):
        x, y = table(64, rng)
        head = MultivariateNormalHead(D, name)
        head.adapt(y)
        curve = fit(head, x, y, epochs=4, jit_compile=True)
        assert curve[-1] < curve[0]

    def test_functional_beside_another_output(self, rng):
        x, y = table(64, rng)
        inputs = keras.Input((2,))
        hidden = keras.layers.Dense(8, "gelu")(inputs)
        head = MultivariateNormalHead(D, "diagonal", name="joint")
        head.adapt(y)
        other = keras.layers.Dense(1, name="other")(hidden)
        model = keras.Model(inputs, {"joint": head(hidden), "other": other})
        model.compile(
            "adam",
            loss={"joint": kmvn.losses.NegativeLogLikelihood("diagonal"), "other": "mse"},
            metrics={"joint": [kmvn.metrics.Coverage(0.9, "diagonal")]},
        )
        targets = {"joint": y, "other": x[:, :1]}
        found = model.evaluate(x, targets, batch_size=64, verbose=0, return_dict=True)
        predicted = model.predict(x, verbose=0)
        normal = head.distribution(predicted["joint"])
        joint, other = -normal.log_prob(y).mean(), np.mean((predicted["other"] - x[:, :1]) ** 2)
        assert found["loss"] == pytest.approx(joint + other, rel=1e-4)
        inside = normal.ellipsoid(0.9).contains(y).mean()
        assert found["joint_coverage_90"] == pytest.approx(inside, abs=1e-6)
        history = model.fit(x, targets, epochs=4, verbose=0).history["loss"]
        assert history[-1] < history[0]

    def test_subclassed(self, rng):
        x, y = table(64, rng)

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = keras.layers.Dense(8, "gelu")
                self.head = MultivariateNormalHead(D)

            def call(self, x):
                return self.head(self.hidden(x))

        model = Net()
        model.head.adapt(y)
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood())
        history = model.fit(x, y, epochs=4, verbose=0).history["loss"]
        assert history[-1] < history[0]
        expected = -model.head.distribution(model.predict(x, verbose=0)).log_prob(y).mean()
        assert model.evaluate(x, y, batch_size=64, verbose=0) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("wrapped", [False, True], ids=["extra axis", "TimeDistributed"])
    def test_sequences(self, wrapped, rng):
        x, y = rng.normal(size=(8, 5, 2)), rng.normal(size=(8, 5, D))
        head = MultivariateNormalHead(D)
        head.adapt(y)
        layer = keras.layers.TimeDistributed(head) if wrapped else head
        model = keras.Sequential([keras.Input((5, 2)), keras.layers.Dense(8, "gelu"), layer])
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood())
        y_pred = model.predict(x, verbose=0)
        assert y_pred.shape == (8, 5, 9)
        # Every step of a sequence is a row, by the same weights.
        expected = -head.distribution(y_pred).log_prob(y).mean()
        assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-4)
        first = numpy(model(x[:, ::-1]))[:, ::-1]
        np.testing.assert_allclose(first, y_pred, rtol=1e-4, atol=1e-5)
        history = model.fit(x, y, epochs=4, verbose=0).history["loss"]
        assert history[-1] < history[0]

    def test_masked_steps_do_not_train(self, rng):
        x, y = rng.normal(size=(8, 5, 2)), rng.normal(size=(8, 5, D))
        x[:, 3:] = 0.0  # Masking's mask value
        head = MultivariateNormalHead(D)
        head.adapt(y)
        y[:, 3:] = np.nan
        model = keras.Sequential([keras.Input((5, 2)), keras.layers.Masking(), head])
        model.compile(
            "sgd",
            loss=kmvn.losses.NegativeLogLikelihood(),
            metrics=[kmvn.metrics.NegativeLogLikelihood(name="nll")],
        )
        loss = model.evaluate(x, y, verbose=0, return_dict=True)
        normal = head.distribution(model.predict(x, verbose=0)[:, :3])
        expected = -normal.log_prob(y[:, :3]).mean()
        assert loss["loss"] == pytest.approx(expected, rel=1e-5)
        assert loss["nll"] == pytest.approx(expected, rel=1e-5)
        history = model.fit(x, y, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        # Keras does not hand masks to any metric in JAX's training step (keras 3.15).
        masked = keras.backend.backend() != "jax"
        assert np.isfinite(history.history["nll"]).all() == masked

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
    def test_half_precision_policies_keep_float32_outputs(self, policy, rng):
        x, y = table(64, rng)
        dense = keras.layers.Dense(8, "gelu", dtype=policy)
        keras.config.set_dtype_policy(policy)
        try:
            head = MultivariateNormalHead(D)
        finally:
            keras.config.set_dtype_policy("float32")
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), dense, head])
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood())
        if policy.startswith("mixed"):  # pure half precision trains poorly in Keras itself
            history = model.fit(x, y, epochs=2, verbose=0)
            assert np.isfinite(history.history["loss"]).all()
        assert keras.backend.standardize_dtype(head(tensor(np.ones((2, 8)))).dtype) == "float32"
        assert head.compute_dtype == "float32"

    @pytest.mark.parametrize("name", PLAIN)
    @pytest.mark.elsewhere(name=["cholesky", "symmetric"])
    def test_float64_stays_float64(self, name, rng):
        with precision("float64"):
            x, y = table(16, rng)
            head = MultivariateNormalHead(D, name, dtype="float64")
            head.adapt(y)
            y_pred = head(tensor(x, "float64"))
            assert keras.backend.standardize_dtype(y_pred.dtype) == "float64"
            # Keras' own reductions return float32 on PyTorch.
            loss = kmvn.losses.NegativeLogLikelihood(name, reduction=None)
            loss = loss(tensor(y, "float64"), y_pred)
            assert keras.backend.standardize_dtype(loss.dtype) == "float64"

    def test_early_stopping_and_checkpoints_need_no_mode(self, rng, tmp_path):
        x, y = table(64, rng)
        head = MultivariateNormalHead(D)
        head.adapt(y)
        model = network(head)
        directed = [
            kmvn.metrics.NegativeLogLikelihood(name="nll"),
            kmvn.metrics.RootMeanSquaredError(name="rmse"),
            kmvn.metrics.CoverageError(0.9, name="gap"),
        ]
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood(), metrics=directed)
        callbacks = [
            callback
            for name in ("nll", "rmse", "gap")
            for callback in (
                keras.callbacks.EarlyStopping(f"val_{name}"),
                keras.callbacks.ModelCheckpoint(
                    tmp_path / f"{name}.keras", f"val_{name}", save_best_only=True
                ),
            )
        ]
        model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=callbacks)
        assert len(list(tmp_path.glob("*.keras"))) == 3

    def test_disagreement_stops_fit_before_a_step(self, rng):
        x, y = table(64, rng)
        model = network(MultivariateNormalHead(D))
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood("precision_cholesky"))
        steps = []
        counter = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: steps.append(1))
        with pytest.raises(ValueError, match="writes covariance='cholesky'"):
            model.fit(x, y, verbose=0, callbacks=[counter])
        assert not steps

    def test_a_metric_that_disagrees_stops_fit_too(self, rng):
        x, y = table(64, rng)
        model = network(MultivariateNormalHead(D))
        model.compile(
            "adam",
            loss=kmvn.losses.NegativeLogLikelihood(),
            metrics=[kmvn.metrics.Coverage(0.9, "precision_cholesky")],
        )
        with pytest.raises(ValueError, match="Coverage reads covariance='precision_cholesky'"):
            model.fit(x, y, verbose=0)

    def test_targets_without_a_time_axis_stop_fit(self, rng):
        model = keras.Sequential([keras.Input((5, 2)), MultivariateNormalHead(1)])
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood())
        with pytest.raises(ValueError, match="y_true has shape"):
            model.fit(np.zeros((16, 5, 2)), np.zeros((16, 1)), verbose=0)

    @pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 2)], ids=str)
    def test_targets_of_the_wrong_shape_stop_fit(self, shape, rng):
        model = network(MultivariateNormalHead(D))
        model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood())
        with pytest.raises(ValueError, match="y_true has shape"):
            model.fit(np.zeros((64, 2)), np.zeros(shape), verbose=0)

    @pytest.mark.skipif(keras.backend.backend() != "jax", reason="read off JAX's jaxpr")
    def test_the_forward_pass_has_no_gather_and_no_solve(self):
        import jax

        forbidden = {"gather", "scatter", "scatter-add", "triangular_solve", "cholesky", "eigh"}
        for name in ("isotropic", "diagonal", "cholesky", "precision_cholesky"):
            head = MultivariateNormalHead(D, name)
            head.build((None, 2))
            used = str(jax.make_jaxpr(lambda x, head=head: head(x))(np.ones((4, 2), "float32")))
            assert not {word for word in forbidden if f" {word}[" in used}


class TestConstruction:
    @pytest.mark.parametrize("size", [0, -1, 2.5, True, None, [2], float("nan")])
    def test_the_event_size_is_a_positive_integer(self, size):
        with pytest.raises(ValueError, match="event_size"):
            MultivariateNormalHead(size)

    @pytest.mark.parametrize("names", [["a"], ["a", "a", "b"], "abc"])
    def test_one_name_per_target(self, names):
        with pytest.raises(ValueError, match="target_names"):
            MultivariateNormalHead(3, target_names=names)

    def test_an_unknown_structure(self):
        with pytest.raises(ValueError, match="choleksy"):
            MultivariateNormalHead(3, "choleksy")

    def test_one_target(self, rng):
        x = rng.normal(size=(32, 2))
        for name in PLAIN:
            head = MultivariateNormalHead(1, name)
            head.adapt(rng.normal(size=32))
            assert np.isfinite(fit(head, x, rng.normal(size=32), epochs=2)).all()

    def test_names_reach_the_distribution(self, rng):
        head = MultivariateNormalHead(2, target_names=["u", "v"])
        assert head.distribution(numpy(head(tensor(np.ones((3, 2)))))).target_names == ("u", "v")


class TestShrinkage:
    """½ λ (mean over rows of Σ (raw − bias)²), while training only."""

    @staticmethod
    def expected(head, features, strength):
        """The penalty in NumPy; features (rows, f) as the head sees them, without masked rows."""
        raw = np.asarray(features, np.float64) @ numpy(head.covariance_dense.kernel)
        return 0.5 * np.mean(np.sum(strength * raw**2, axis=-1))

    @staticmethod
    def with_a_bias(head, rng):
        """The bias is the level that all rows share, and it is free: give it a value."""
        bias = head.covariance_dense.bias
        bias.assign(rng.normal(size=bias.shape))
        return head

    def test_the_formula(self, rng):
        x, y = table(20, rng)
        head = MultivariateNormalHead(D, shrinkage=0.7)
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), head])
        self.with_a_bias(head, rng)
        model(tensor(x), training=True)
        (penalty,) = model.losses
        assert numpy(penalty) == pytest.approx(self.expected(head, x, 0.7), rel=1e-5)

    def test_training_loss_has_it_and_validation_loss_has_not(self, rng):
        x, y = table(20, rng)
        losses = {}
        for strength in (None, 0.7):
            head = MultivariateNormalHead(D, shrinkage=strength)
            head.adapt(y)
            model = keras.Sequential([keras.Input((2,)), head])
            for dense in (head.mean_dense, head.covariance_dense):
                dense.kernel.assign(np.linspace(-0.5, 0.5, 2 * dense.units).reshape(2, -1))
            expected = self.expected(head, x, 0.7)
            model.compile(keras.optimizers.SGD(0.0), loss=kmvn.losses.NegativeLogLikelihood())
            history = model.fit(x, y, batch_size=20, validation_data=(x, y), verbose=0).history
            losses[strength] = history["loss"][0], history["val_loss"][0]
        assert losses[0.7][0] - losses[None][0] == pytest.approx(expected, rel=1e-4)
        assert losses[0.7][1] == pytest.approx(losses[None][1], rel=1e-6)

    def test_masked_steps_weigh_nothing(self, rng):
        x = rng.normal(size=(6, 5, 2))
        x[:, 3:] = 1e3
        mask = np.arange(5) < np.array([3, 3, 2, 1, 3, 0])[:, None]
        head = MultivariateNormalHead(D, shrinkage=2.0)
        head.build((None, None, 2))
        self.with_a_bias(head, rng)
        head(tensor(x), mask=tensor(mask, "bool"), training=True)
        (penalty,) = head.losses
        assert numpy(penalty) == pytest.approx(self.expected(head, x[mask], 2.0), rel=1e-5)

    def test_a_batch_that_is_masked_altogether_adds_nothing(self, rng):
        head = MultivariateNormalHead(D, shrinkage=2.0)
        x, mask = rng.normal(size=(2, 5, 2)), np.zeros((2, 5))
        head(tensor(x), mask=tensor(mask, "bool"), training=True)
        assert [numpy(penalty) for penalty in head.losses] == [0.0]

    def test_masking_layers_are_heard(self, rng):
        x = rng.normal(size=(8, 5, 2))
        x[:, 3:] = 0.0  # Masking's mask value
        head = MultivariateNormalHead(D, shrinkage=2.0, covariance_kernel_initializer="ones")
        model = keras.Sequential([keras.Input((5, 2)), keras.layers.Masking(), head])
        model(tensor(x), training=True)
        (penalty,) = model.losses
        assert numpy(penalty) == pytest.approx(self.expected(head, x[:, :3], 2.0), rel=1e-5)

    def test_without_a_bias(self, rng):
        x, _ = table(20, rng)
        head = MultivariateNormalHead(D, shrinkage=1.5, use_bias=False)
        head(tensor(x), training=True)
        (penalty,) = head.losses
        assert numpy(penalty) == pytest.approx(self.expected(head, x, 1.5), rel=1e-5)

    def test_only_what_depends_on_x_is_shrunk(self, rng):
        x, _ = table(20, rng)
        head = MultivariateNormalHead(D, shrinkage=1.0, constant="shape")
        head(tensor(x), training=True)
        head.constant_raw.assign([3.0] * 3)
        (penalty,) = head.losses
        assert head.covariance_dense.units == D
        assert numpy(penalty) == pytest.approx(self.expected(head, x, 1.0), rel=1e-5)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"shrinkage": None},
            {"shrinkage": 0.0},
            {"shrinkage": "auto"},  # without adapt nobody knows n
            {"shrinkage": 1.0, "constant": "covariance"},
        ],
    )
    def test_nothing_to_shrink(self, arguments, rng):
        head = MultivariateNormalHead(D, **arguments)
        head(tensor(table(20, rng)[0]), training=True)
        assert head.losses == []

    def test_inference_adds_nothing(self, rng):
        head = MultivariateNormalHead(D, shrinkage=1.0)
        head(tensor(table(20, rng)[0]))
        assert head.losses == []

    @pytest.mark.parametrize(("rows", "of_scales", "of_others"), AUTO)
    def test_auto_falls_with_the_rows_that_adapt_counted(self, rows, of_scales, of_others, rng):
        x, y = table(rows, rng)
        head = MultivariateNormalHead(D, shrinkage="auto")
        head.adapt(y)
        assert head.shrinkage_strengths == pytest.approx((of_scales, of_others))
        head(tensor(x), training=True)
        (penalty,) = head.losses
        strength = np.array([of_scales] * D + [of_others] * 3)
        assert numpy(penalty) == pytest.approx(self.expected(head, x, strength), rel=1e-5)

    @pytest.mark.parametrize(
        ("name", "strengths"),
        [("diagonal", (0.25, 0.0)), ("isotropic", (0.25, 0.0)), ("symmetric", (0.25, 1.5))],
    )
    def test_auto_of_other_structures(self, name, strengths, rng):
        head = MultivariateNormalHead(D, name)
        head.adapt(table(64, rng)[1])
        assert head.shrinkage_strengths == pytest.approx(strengths)

    def test_auto_counts_observed_rows(self, rng):
        _, y = table(64, rng)
        y[:32] = np.nan
        y[32:40, 0] = np.nan
        head, other = (MultivariateNormalHead(D, shrinkage="auto") for _ in range(2))
        head.adapt(y)
        other.adapt(table(32, rng)[1])
        assert head.shrinkage_strengths == other.shrinkage_strengths
        assert min(head.shrinkage_strengths) > 0

    def test_clones_and_files_keep_the_strength(self, rng, tmp_path):
        x, y = table(64, rng)
        head = MultivariateNormalHead(D, shrinkage="auto")
        head.adapt(y)
        model = network(head)
        model.compile("sgd", loss=kmvn.losses.NegativeLogLikelihood())
        model.save(tmp_path / "model.keras")
        clone = keras.models.clone_model(model)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for again in (clone, loaded):
            assert again.layers[-1].shrinkage == "auto"
            assert again.layers[-1].shrinkage_strengths == head.shrinkage_strengths
            assert min(head.shrinkage_strengths) > 0
        for again in (model, loaded):
            again(tensor(x), training=True)
        assert numpy(loaded.losses[0]) == pytest.approx(numpy(model.losses[0]), rel=1e-6)

    @pytest.mark.elsewhere(False)
    def test_the_stronger_the_less_covariances_vary(self, rng):
        x = rng.normal(size=(64, 2))
        y = rng.normal(size=(64, D)) * np.exp(x[:, :1])
        spread = []
        for strength in (None, 0.3, 10.0):
            keras.utils.set_random_seed(1)
            head = MultivariateNormalHead(D, shrinkage=strength)
            head.adapt(y)
            model = network(head)
            model.compile(keras.optimizers.Adam(0.01), loss=kmvn.losses.NegativeLogLikelihood())
            model.fit(x, y, epochs=60, batch_size=64, verbose=0)
            variance = head.distribution(model.predict(x, verbose=0)).variance
            spread.append(np.log(variance).std(axis=0).mean())
        assert spread[0] > 1.2 * spread[1] > 3 * spread[2]

    @pytest.mark.parametrize("shrinkage", [-1.0, np.nan, np.inf, "automatic"])
    def test_other_strengths_are_refused(self, shrinkage):
        with pytest.raises(ValueError, match="must be None, 'auto' or a number ≥ 0"):
            MultivariateNormalHead(D, shrinkage=shrinkage)


class TestSaving:
    changed = {
        "event_size": 2,
        "covariance": "precision_cholesky",
        "target_names": ["u", "v"],
        "kernel_initializer": "he_normal",
        "covariance_kernel_initializer": "zeros",
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "use_bias": False,
        "constant": "shape",
        "stop_trunk": True,
        "shrinkage": 0.5,
        "degrees_of_freedom": "constant",
        "name": "mine",
        "dtype": "float64",
        "trainable": False,
    }

    def test_every_argument_survives(self, rng):
        with precision("float64"):
            self.check_every_argument(rng)

    def check_every_argument(self, rng):
        head = MultivariateNormalHead(**self.changed)
        head.adapt(rng.normal(size=(9, 2)))
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(head)))
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == head.get_config()
        default = MultivariateNormalHead(3).get_config()
        assert all(again.get_config()[key] != default[key] for key in [*self.changed, "origin"])

    @pytest.mark.parametrize("name", PLAIN)
    @pytest.mark.elsewhere(name=["cholesky", "diagonal"])
    def test_a_saved_model_predicts_and_trains_on(self, name, rng, tmp_path):
        x, y = table(64, rng)
        head = MultivariateNormalHead(D, name)
        head.adapt(y)
        model = network(head)
        penalty = kmvn.regularizers.CovarianceL1(0.01)
        model.compile(
            "adam",
            loss=kmvn.losses.NegativeLogLikelihood(name, regularizer=penalty),
            metrics=[kmvn.metrics.Coverage(0.9, name)],
        )
        model.fit(x, y, epochs=2, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
        assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
        before = again.evaluate(x, y, verbose=0)
        again.fit(x, y, epochs=3, verbose=0)
        assert again.evaluate(x, y, verbose=0) < before

    def test_a_clone_keeps_the_units(self, rng):
        _, y = table(64, rng)
        head = MultivariateNormalHead(D)
        head.adapt(y)
        clone = keras.models.clone_model(network(head))
        np.testing.assert_array_equal(
            numpy(clone.layers[-1].origin_scale), numpy(head.origin_scale)
        )

    def test_weights_alone_carry_the_units(self, rng, tmp_path):
        x, y = table(64, rng)
        head = MultivariateNormalHead(D)
        head.adapt(y)
        model, fresh = network(head), network(MultivariateNormalHead(D))
        model.save_weights(tmp_path / "w.weights.h5")
        fresh.load_weights(tmp_path / "w.weights.h5")
        np.testing.assert_array_equal(fresh.predict(x, verbose=0), model.predict(x, verbose=0))
        assert fresh.layers[-1].shrinkage_strengths == head.shrinkage_strengths != (0.0, 0.0)
        clone = keras.models.clone_model(fresh)
        np.testing.assert_array_equal(numpy(clone.layers[-1].origin_mean), numpy(head.origin_mean))

    def test_a_newer_wire_format_is_refused(self):
        config = MultivariateNormalHead(2).get_config()
        config["wire_version"] = 99
        with pytest.raises(ValueError, match="Upgrade keras-mvn"):
            MultivariateNormalHead.from_config(config)

    def test_structures_in_configs_are_resolved(self):
        config = MultivariateNormalHead(2, covariances.Diagonal()).get_config()
        assert MultivariateNormalHead.from_config(config).covariance == covariances.Diagonal()


def test_adapt_warns_of_nothing_when_all_is_well(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultivariateNormalHead(D).adapt(table(50, rng)[1])
