"""Callbacks: what they see, what they restore, what they change; on real failures."""

import csv
import io
import os
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

from differentiation import numpy
from keras_mvn import covariances
from keras_mvn.callbacks import (
    BetaAnnealing,
    CovarianceMonitor,
    MeanWarmUp,
    NonFiniteGuard,
    NonFiniteWarning,
    OverfittingWarning,
    WarnOnOverfitting,
)
from keras_mvn.callbacks._diagnosis import examine_data, examine_inputs, examine_prediction
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.losses import NegativeLogLikelihood

D = 2
ON_TORCH = keras.backend.backend() == "torch"


@pytest.fixture
def table(rng):
    x = rng.normal(size=(64, 3)).astype("float32")
    noise = rng.normal(size=(64, D)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    return x, (x[:, :D] + 0.5 * noise).astype("float32")


def make(y=None, covariance="cholesky", optimizer="adam", names=None, **compile_options):
    keras.utils.set_random_seed(0)
    head = MultivariateNormalHead(D, covariance, target_names=names)
    if y is not None:
        head.adapt(y)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "gelu"), head])
    model.compile(optimizer, NegativeLogLikelihood(covariance), **compile_options)
    return model, head


def weights(model):
    return [numpy(v) for v in model.weights]


def records(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def fit(model, x, y, callbacks=(), epochs=1, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options)


class TestCovarianceMonitor:
    @pytest.mark.parametrize("name", ["diagonal", "cholesky", "precision_cholesky"])
    def test_values_are_those_of_the_dense_matrices(self, name, table):
        x, y = table
        y = y * np.array([1.0, 1e3], "float32")
        model, _ = make(y, name)
        history = fit(model, x, y, [CovarianceMonitor(x[:10], y[:10])], epochs=2).history
        y_pred = np.asarray(model.predict(x[:10], verbose=0), np.float64)
        mean, scale, n = y_pred[:, :D], y_pred[:, D : 2 * D], y_pred[:, 2 * D :]
        factor = np.tile(np.eye(D), (10, 1, 1))
        if n.shape[-1]:
            factor[:, 1, 0] = n[:, 0]
        r = factor @ factor.transpose(0, 2, 1)
        if name == "precision_cholesky":
            r = np.linalg.inv(factor.transpose(0, 2, 1) @ factor)
        sigma = scale[:, :, None] * r * scale[:, None, :]
        sd = np.sqrt(np.diagonal(sigma, axis1=1, axis2=2))
        rho = (sigma / sd[:, :, None] / sd[:, None, :])[:, 0, 1]
        residual = y[:10] - mean
        squared = [e @ np.linalg.solve(s, e) for e, s in zip(residual, sigma, strict=True)]
        expected = {  # a 2 × 2 correlation matrix has eigenvalues 1 ± ρ
            "cov_min_eigenvalue": 1 - np.abs(rho).max(),
            "cov_max_eigenvalue": 1 + np.abs(rho).max(),
            "cov_condition": ((1 + np.abs(rho)) / (1 - np.abs(rho))).max(),
            "cov_condition_in_units": np.linalg.cond(sigma).max(),
            "cov_half_log_det": 0.5 * np.log(np.linalg.det(sigma)).mean(),
            "cov_squared_z": np.mean(squared) / D,
            "cov_at_floor": 0.0,
        }
        assert {k for k in history if k.startswith("cov_")} == set(expected)
        for key, value in expected.items():
            assert len(history[key]) == 2
            np.testing.assert_allclose(history[key][-1], value, rtol=1e-9, atol=1e-12, err_msg=key)

    def test_missing_targets_dont_count(self, table):
        x, y = table
        model, head = make(y)
        holes = y[:4].copy()
        holes[2, 1] = holes[3, :] = np.nan
        history = fit(model, x, y, [CovarianceMonitor(x[:4], holes)]).history
        normal = head.distribution(model.predict(x[:4], verbose=0))
        total, count = 0.0, 0
        for i in range(4):
            o = ~np.isnan(holes[i])
            r, sigma = (holes[i] - normal.mean[i])[o], normal.covariance[i][np.ix_(o, o)]
            total, count = total + r @ np.linalg.inv(sigma) @ r, count + o.sum()
        np.testing.assert_allclose(history["cov_squared_z"][-1], total / count, rtol=1e-6)

    def test_share_of_rows_at_the_floor(self, table):
        x, y = table
        model, head = make(y)
        kernel = np.zeros(head.covariance_dense.kernel.shape)
        kernel[0, 1] = 1.0
        head.covariance_dense.kernel.assign(kernel)
        hidden = numpy(model.layers[0](keras.ops.convert_to_tensor(x)))
        head.covariance_dense.bias.assign([0.0, -3.0, 0.0])  # scale < e⁻³ where hidden[0] < 0
        model.optimizer.learning_rate = 0.0
        history = fit(model, x, y, [CovarianceMonitor(x)]).history
        assert history["cov_at_floor"] == [np.mean(hidden[:, 0] < 0)]
        assert 0.1 < history["cov_at_floor"][0] < 0.9

    def test_callbacks_after_it_see_the_logs(self, table, tmp_path):
        x, y = table
        model, _ = make(y)
        history = fit(
            model,
            x,
            y,
            [
                CovarianceMonitor(x[:4], y[:4], csv_path=tmp_path / "sub" / "cov.csv"),
                keras.callbacks.CSVLogger(tmp_path / "keras.csv"),
                keras.callbacks.EarlyStopping("cov_squared_z", mode="min", min_delta=1e9),
            ],
            epochs=5,
        ).history
        assert len(history["loss"]) == 2  # nothing improves by 1e9
        mine = records(tmp_path / "sub" / "cov.csv")
        theirs = records(tmp_path / "keras.csv")
        for row, other, epoch in zip(mine, theirs, range(2), strict=True):
            assert row.pop("epoch") == str(epoch)
            for key, value in row.items():
                assert float(value) == float(other[key]) == history[key][epoch]

    def test_resumed_training_appends_to_the_table(self, table, tmp_path):
        x, y = table
        path = tmp_path / "cov.csv"
        for _ in range(2):  # the second run from epoch 0 starts the file anew
            model, _ = make(y)
            fit(model, x, y, [CovarianceMonitor(x[:4], csv_path=path)], epochs=2)
        fit(model, x, y, [CovarianceMonitor(x[:4], csv_path=path)], epochs=3, initial_epoch=2)
        assert [row["epoch"] for row in records(path)] == ["0", "1", "2"]

    def test_every_few_epochs(self, table, tmp_path):
        x, y = table
        model, _ = make(y)
        monitor = CovarianceMonitor(x[:4], every=2, csv_path=tmp_path / "cov.csv")
        volume = fit(model, x, y, [monitor], epochs=4).history["cov_half_log_det"]
        assert volume[0] == volume[1] != volume[2] == volume[3]
        rows = records(tmp_path / "cov.csv")
        assert [row["epoch"] for row in rows] == ["0", "2"]

    def test_broken_weights_are_nan_not_an_error(self, table):
        x, y = table
        model, _ = make(y)
        breaks = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: model.layers[0].bias.assign(np.full(8, np.nan))
        )
        history = fit(model, x, y, [breaks, CovarianceMonitor(x[:4], y[:4])]).history
        assert np.isnan([history[key] for key in history if key.startswith("cov_")]).all()

    def test_tensorboard_gets_scalars_and_the_mean_correlation(self, table, tmp_path):
        event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
        image = pytest.importorskip("PIL.Image")
        x, y = table
        model, _ = make(y)
        history = fit(model, x, y, [CovarianceMonitor(x[:4], log_dir=tmp_path)], epochs=2).history
        (path,) = tmp_path.iterdir()
        content, found = path.read_bytes(), {}
        while content:  # TFRecord: length, its checksum, event, its checksum
            length = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            found |= {(value.tag, event.step): value for value in event.summary.value}
        for epoch in range(2):
            value = found["cov_half_log_det", epoch].simple_value
            np.testing.assert_allclose(value, history["cov_half_log_det"][epoch], rtol=1e-6)
        png = found["cov_mean_correlation", 1].image.encoded_image_string
        pixels = np.asarray(image.open(io.BytesIO(png)))
        y_pred = model.predict(x[:4], verbose=0)
        rho = np.mean(y_pred[:, 4] / np.sqrt(1 + y_pred[:, 4] ** 2))
        assert rho > 0.2
        expected = 255 + rho * (np.array([213, 94, 0]) - 255)
        np.testing.assert_allclose(pixels[-1, 0], expected, atol=1)
        np.testing.assert_allclose(pixels[0, 0], [213, 94, 0], atol=1)

    def test_tensorboard_without_its_package(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(ImportError, match="pip install tensorboardX"):
            CovarianceMonitor(np.ones((2, 3)), log_dir=tmp_path)

    def test_which_head_and_output(self, table):
        x, y = table
        inputs = keras.Input((3,))
        heads = [MultivariateNormalHead(D, name=name) for name in ("a", "b")]
        model = keras.Model(inputs, {head.name: head(inputs) for head in heads})
        model.compile("adam", {"a": NegativeLogLikelihood(), "b": NegativeLogLikelihood()})
        both = {"a": y, "b": y}
        with pytest.raises(ValueError, match=r"found \['a', 'b'\]"):
            fit(model, x, both, [CovarianceMonitor(x)])
        with pytest.raises(ValueError, match=r"several outputs, \['a', 'b'\]"):
            fit(model, x, both, [CovarianceMonitor(x, head=heads[1])])
        history = fit(model, x, both, [CovarianceMonitor(x, head=heads[1], output="b")]).history
        normal = heads[1].distribution(model.predict(x, verbose=0)["b"])
        np.testing.assert_allclose(
            history["cov_half_log_det"], normal.half_log_det.mean(), rtol=1e-6
        )

    def test_bad_arguments(self, table):
        x, y = table
        with pytest.raises(ValueError, match="every=0"):
            CovarianceMonitor(x, every=0)
        with pytest.raises(ValueError, match=r"y_probe has shape \(64, 3\)"):
            fit(make(y)[0], x, y, [CovarianceMonitor(x, x)])


class TestNonFiniteGuard:
    def fail(self, x, y, guard, optimizer="adam", adapt=None, names=None, **options):
        model, _ = make(adapt, optimizer=optimizer, names=names)
        with pytest.warns(NonFiniteWarning) as caught:
            fit(model, x, y, [guard], **options)
        said = [str(w.message) for w in caught if w.category is NonFiniteWarning]
        assert said == [report.message for report in guard.reports]
        assert all(np.isfinite(w).all() for w in weights(model))
        return model, guard.report

    def test_missing_target(self, table):
        x, y = table
        bad = y.copy()
        bad[[17, 20], 1] = np.nan
        guard = NonFiniteGuard(data=(x, bad))
        _, report = self.fail(x, bad, guard, adapt=y, names=["wind", "rain"], epochs=3)
        assert (report.epoch, report.batch, report.cause) == (0, 2, "y")
        assert (report.rows, report.targets) == ((1, 4), ("rain",))
        assert "epoch 1, batch 3" in report.message
        assert "y contains NaN in 2 rows (1, 4), targets rain" in report.message
        assert "in the table: y contains NaN in 2 rows (17, 20)" in report.message

    def test_infinite_input(self, table):
        x, y = table
        bad = x.copy()
        bad[40, 2] = np.inf
        _, report = self.fail(bad, y, NonFiniteGuard(), adapt=y)
        assert (report.batch, report.cause, report.rows) == (5, "x", (0,))
        assert "x contains inf in 1 row (0), columns 2" in report.message

    def test_units_without_adapt(self, table):
        x, y = table
        big = y * np.array([1.0, 1e12], "float32")
        sgd = keras.optimizers.SGD(0.01)
        _, report = self.fail(x, big, NonFiniteGuard(), sgd, epochs=3)
        assert (report.cause, report.targets) == ("units", ("1",))
        assert "head.adapt(y_train)" in report.message

    def test_learning_rate(self, table):
        x, y = table
        _, report = self.fail(x, y, NonFiniteGuard(), keras.optimizers.SGD(1e3), y, epochs=5)
        assert report.cause == "learning_rate"
        assert report.learning_rate == 1e3
        assert "learning_rate=1000" in report.message

    def test_an_input_that_nothing_scales(self, table):
        x, y = table
        pascal = x * np.array([1.0, 800.0, 1.0], "float32") + np.float32([0.0, 101_325.0, 0.0])
        sgd = keras.optimizers.SGD(0.01)
        _, report = self.fail(pascal, y, NonFiniteGuard(), sgd, y, epochs=5)
        assert report.cause == "inputs"
        assert "inputs are not scaled: column 1 of x, with mean 1.01" in report.message
        assert "keras.layers.Normalization" in report.message
        assert "also: the steps are too large" in report.message

    @pytest.mark.once
    def test_inputs_that_a_layer_scales_are_not_blamed(self, table):
        x, y = table
        normalization = keras.layers.Normalization()
        normalization.adapt(x * 1e5)
        model = keras.Sequential([keras.Input((3,)), normalization, MultivariateNormalHead(D)])
        assert examine_inputs((x * 1e5, y), model) == []
        plain = keras.Sequential([keras.Input((3,)), MultivariateNormalHead(D)])
        assert [found.cause for found in examine_inputs((x * 1e5, y), plain)] == ["inputs"]
        assert examine_inputs((x, y), plain) == []

    def test_halving_until_it_stays_finite(self, table):
        x, y = table
        sgd = keras.optimizers.SGD(1e3)
        guard = NonFiniteGuard("halve", max_halvings=40)
        model, _ = self.fail(x, y, guard, sgd, y, epochs=20)
        assert len(guard.reports) >= 2
        rate = float(model.optimizer.learning_rate)
        np.testing.assert_allclose(rate, 1e3 * 0.5 ** len(guard.reports))
        assert not model.stop_training

    def test_a_limit_on_halvings(self, table):
        x, y = table
        guard = NonFiniteGuard("halve", max_halvings=2)
        model, report = self.fail(x, y, guard, keras.optimizers.SGD(1e6), y, epochs=60)
        assert len(guard.reports) == 3
        assert "stops after 2 halvings" in report.message
        assert float(model.optimizer.learning_rate) == 1e6 / 4

    def test_no_halving_for_broken_data(self, table):
        x, y = table
        bad = y.copy()
        bad[0] = np.nan
        guard = NonFiniteGuard("halve")
        _, report = self.fail(x, bad, guard, adapt=y, epochs=4)
        assert len(guard.reports) == 1
        assert "no learning rate can fix the data" in report.message

    def test_weights_and_optimizer_of_the_last_good_epoch(self, table):
        x, y = table
        bad = y.copy()
        bad[50] = np.nan
        good, _ = make(y)
        fit(good, x[:48], y[:48], epochs=2)

        class Rows(keras.utils.PyDataset):  # the bad row comes in the third epoch
            epoch = 0

            def __len__(self):
                return 6

            def __getitem__(self, i):
                rows = slice(8 * i, 8 * i + 8)
                late = slice(48, 56) if self.epoch == 2 and i == 3 else rows
                return x[late], bad[late]

            def on_epoch_end(self):
                pass

        rows = Rows()
        count = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: setattr(rows, "epoch", epoch)
        )
        model, _ = make(y)
        guard = NonFiniteGuard()
        with pytest.warns(NonFiniteWarning):
            model.fit(rows, epochs=4, shuffle=False, verbose=0, callbacks=[guard, count])
        assert (guard.report.epoch, guard.report.batch, guard.report.rows) == (2, 3, (2,))
        for got, want in zip(weights(model), weights(good), strict=True):
            np.testing.assert_array_equal(got, want)
        for got, want in zip(model.optimizer.variables, good.optimizer.variables, strict=True):
            np.testing.assert_array_equal(numpy(got), numpy(want))

    def test_a_snapshot_of_every_batch_leaves_out_the_bad_step_alone(self, table):
        x, y = table
        bad = y.copy()
        bad[20] = 1e30
        good, _ = make(y)
        fit(good, x[:16], y[:16])
        guard = NonFiniteGuard(snapshot_every=1)
        model, report = self.fail(x, bad, guard, adapt=y)
        assert (report.cause, report.batch, report.rows) == ("units", 2, (4,))
        for got, want in zip(weights(model), weights(good), strict=True):
            np.testing.assert_array_equal(got, want)

    @pytest.mark.elsewhere(False)
    def test_going_on_after_a_bad_step(self, table):
        """With SGD, halving is known: the clean batches before and after, in two runs."""
        x, y = table
        bad = y.copy()
        bad[20] = 1e30
        good, _ = make(y, optimizer=keras.optimizers.SGD(0.01))
        fit(good, x[:16], y[:16])
        good.optimizer.learning_rate = 0.005
        fit(good, x[24:], y[24:])
        guard = NonFiniteGuard("halve", snapshot_every=1)
        model, _ = make(y, optimizer=keras.optimizers.SGD(0.01))
        with pytest.warns(NonFiniteWarning):
            history = fit(model, x, bad, [guard]).history
        for got, want in zip(weights(model), weights(good), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
        assert np.isfinite(history["loss"][0])

    def test_weights_that_break_at_the_end_of_an_epoch(self, table):
        x, y = table
        model, _ = make(y)
        guard = NonFiniteGuard()

        def break_weights(epoch, logs):
            if epoch == 1:
                model.layers[0].bias.assign(np.full(8, np.inf))

        breaks = keras.callbacks.LambdaCallback(on_epoch_end=break_weights)
        with pytest.warns(NonFiniteWarning, match="the loss is finite, but .*bias"):
            fit(model, x, y, [breaks, guard], epochs=5)
        assert (guard.report.epoch, guard.report.cause) == (1, "learning_rate")
        assert all(np.isfinite(w).all() for w in weights(model))

    @pytest.mark.skipif(ON_TORCH, reason="Keras has no steps_per_execution on PyTorch")
    def test_steps_per_execution(self, table):
        x, y = table
        bad = y.copy()
        bad[41, 0] = np.nan
        model, _ = make(y, steps_per_execution=3)
        guard = NonFiniteGuard()
        with pytest.warns(NonFiniteWarning):
            fit(model, x, bad, [guard])
        assert (guard.report.batch, guard.report.rows) == (5, (1,))

    @pytest.mark.parametrize("options", [{}, {"snapshot_every": 3}])
    def test_a_healthy_run_is_what_it_was_without(self, table, options):
        x, y = table
        bare, _ = make(y)
        fit(bare, x, y, epochs=2)
        guard = NonFiniteGuard(**options)
        model, _ = make(y)
        fit(model, x, y, [guard], epochs=2)
        assert guard.report is None
        assert "Recorder" not in type(model.train_function).__name__
        for got, want in zip(weights(model), weights(bare), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)

    def test_a_partial_last_batch_and_datasets(self, table):
        x, y = table
        bad = y.copy()
        bad[63] = np.nan
        model, _ = make(y)
        guard = NonFiniteGuard()
        with pytest.warns(NonFiniteWarning):
            fit(model, x, bad, [guard], batch_size=12)
        assert (guard.report.batch, guard.report.rows) == (5, (3,))

    def test_a_model_without_a_head(self, table):
        x, y = table
        bad = y.copy()
        bad[9] = np.inf
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(D)])
        model.compile("adam", "mse")
        guard = NonFiniteGuard()
        with pytest.warns(NonFiniteWarning):
            fit(model, x, bad, [guard])
        assert (guard.report.cause, guard.report.batch, guard.report.rows) == ("y", 1, (1,))

    def test_after_a_warm_up_compiled_anew(self, table):
        x, y = table
        bad = y.copy()
        bad[30] = np.nan
        model, _ = make(y)
        guard = NonFiniteGuard()
        with pytest.warns(NonFiniteWarning):
            fit(model, x, bad, [guard, MeanWarmUp(epochs=1)])
        assert (guard.report.batch, guard.report.rows) == (3, (6,))

    def test_rows_of_weight_zero_and_allowed_gaps_are_no_cause(self, table):
        _, head = make()
        x, y = np.ones((3, 3)), np.array([[np.nan, 0.0], [0.0, 0.0], [np.inf, 0.0]])
        (finding,) = examine_data((x, y, np.array([0.0, 1.0, 1.0])), head, False)
        assert (finding.cause, finding.rows) == ("y", (2,))
        (finding,) = examine_data((x, y), head, missing_allowed=True)
        assert (finding.cause, finding.rows) == ("y", (2,))
        (finding,) = examine_data((x, y), head, missing_allowed=False)
        assert finding.rows == (0, 2)

    def test_collapsed_scale_and_singular_correlation(self):
        _, head = make(names=["wind", "rain"])
        sound = [0.0, 0.0, 1.0, 1.0, 0.5]
        assert examine_prediction(np.array([sound]), head) == []
        (finding,) = examine_prediction(np.array([sound, [0.0, 0.0, 1.0, 1e-9, 0.5]]), head)
        assert (finding.cause, finding.rows, finding.targets) == ("scale", (1,), ("rain",))
        (finding,) = examine_prediction(np.array([[0.0, 0.0, 1.0, 1.0, 1e8], sound]), head)
        assert (finding.cause, finding.rows) == ("condition", (0,))
        (finding,) = examine_prediction(np.array([sound, [np.nan, *sound[1:]]]), head)
        assert (finding.cause, finding.rows) == ("prediction", (1,))

    def test_many_targets_are_examined_without_a_dense_matrix(self):
        d = 200_000  # 320 GB for one row
        structure = covariances.LowRank(1)
        head = MultivariateNormalHead(d, structure)
        prediction = np.concatenate([np.zeros(d), np.ones(d), np.full(d, 0.1)])[None]
        assert examine_prediction(prediction, head) == []
        prediction[0, d + 7] = 1e-9
        (finding,) = examine_prediction(prediction, head)
        assert (finding.cause, finding.targets) == ("scale", ("7",))

    def test_bad_arguments(self, table):
        with pytest.raises(ValueError, match="action='skip'"):
            NonFiniteGuard("skip")
        with pytest.raises(ValueError, match="snapshot_every=0"):
            NonFiniteGuard(snapshot_every=0)
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        model, _ = make(optimizer=keras.optimizers.Adam(schedule))
        with pytest.raises(ValueError, match="cannot halve a LearningRateSchedule"):
            fit(model, *table, [NonFiniteGuard("halve")])


class TestMeanWarmUp:
    def test_the_mean_learns_as_under_a_constant_covariance(self, table):
        """Against a network of means alone and the squared Mahalanobis distance, by hand."""
        x, y = table
        model, head = make(y, optimizer=keras.optimizers.SGD(0.05))
        precision = np.linalg.inv(np.cov(y.T, bias=True)).astype("float32")
        means = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(8, "gelu"), keras.layers.Dense(D)]
        )
        means.set_weights([numpy(v) for v in (*model.layers[0].weights, *head.mean_dense.weights)])

        def distance(y_true, raw):
            m, t, p = map(keras.ops.convert_to_tensor, (y.mean(0), y.std(0), precision))
            r = y_true - (m + t * raw)
            return 0.5 * keras.ops.sum((r @ p) * r, axis=-1)

        means.compile(keras.optimizers.SGD(0.05), distance)
        fit(means, x, y, epochs=3)
        fit(model, x, y, [MeanWarmUp(epochs=3)], epochs=3)
        learnt = [*model.layers[0].weights, *head.mean_dense.weights]
        for got, want in zip(learnt, means.weights, strict=True):
            np.testing.assert_allclose(numpy(got), numpy(want), rtol=2e-4, atol=2e-5)

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
            lambda: keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0),
        ],
    )
    def test_the_covariance_stands_still_and_then_learns(self, table, optimizer):
        x, y = table
        model, head = make(y, optimizer=optimizer())
        seen = []

        def look(epoch, logs):
            seen.append([np.abs(numpy(v)).max() for v in head.covariance_dense.weights])

        look = keras.callbacks.LambdaCallback(on_epoch_end=look)
        fit(model, x, y, [MeanWarmUp(fraction=0.5), look], epochs=4)
        np.testing.assert_array_equal(seen[:2], 0.0)
        assert np.min(seen[2:]) > 0
        assert "apply" not in vars(model.optimizer)

    @pytest.mark.parametrize(
        "start",
        [
            0,
            pytest.param(
                1,
                marks=pytest.mark.skipif(
                    keras.backend.backend() == "jax",
                    reason="a second fit with use_ema fails on JAX, whatever the model",
                ),
            ),
        ],
    )
    def test_averages_are_of_what_stands_still(self, table, start):
        """Keras gives the weights their averages when training ends."""
        x, y = table
        model, head = make(y, optimizer=keras.optimizers.Adam(0.01, use_ema=True))
        fit(model, x, y, epochs=start)
        held = [start * numpy(v) for v in head.covariance_dense.weights]
        fit(model, x, y, [MeanWarmUp(epochs=3)], epochs=3, initial_epoch=start)
        for variable, value in zip(head.covariance_dense.weights, held, strict=True):
            np.testing.assert_allclose(numpy(variable), value, atol=1e-6)

    @pytest.mark.parametrize("constant", ["shape", "covariance"])
    def test_constant_parts_stand_still_too(self, table, constant):
        x, y = table
        head = MultivariateNormalHead(D, constant=constant)
        head.adapt(y)
        model = keras.Sequential([keras.Input((3,)), head])
        model.compile("adam", NegativeLogLikelihood())
        fit(model, x, y, [MeanWarmUp(epochs=1)])
        normal = head.distribution(model.predict(x, verbose=0))
        expected = np.broadcast_to(np.cov(y.T, bias=True), (64, D, D))
        np.testing.assert_allclose(normal.covariance, expected, rtol=1e-5)

    def test_it_trains_on_as_without_it(self, table):
        x, y = table
        model, head = make(y)
        fit(model, x, y, [MeanWarmUp(epochs=1)], epochs=1)
        before = [numpy(v) for v in head.covariance_dense.weights]
        fit(model, x, y)
        for old, new in zip(before, head.covariance_dense.weights, strict=True):
            assert np.abs(numpy(new) - old).max() > 0

    def test_resumed_training_counts_epochs_from_the_start(self, table):
        x, y = table
        whole, _ = make(y)
        fit(whole, x, y, [MeanWarmUp(epochs=2)], epochs=3)
        model, _ = make(y)
        fit(model, x, y, [MeanWarmUp(epochs=2)], epochs=1)
        fit(model, x, y, [MeanWarmUp(epochs=2)], epochs=3, initial_epoch=1)
        for got, want in zip(weights(model), weights(whole), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)

    def test_an_interrupted_run_leaves_nothing_behind(self, table):
        x, y = table
        model, head = make(y)

        def interrupt(batch, logs):
            raise RuntimeError("interrupted")

        stop = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(model, x, y, [MeanWarmUp(epochs=5), stop])
        fit(model, x, y, [MeanWarmUp(epochs=0)])
        assert np.abs(numpy(head.covariance_dense.kernel)).max() > 0

    def test_bad_arguments(self, table):
        with pytest.raises(ValueError, match="not both"):
            MeanWarmUp(epochs=1, fraction=0.5)
        with pytest.raises(ValueError, match=r"fraction=1\.5"):
            MeanWarmUp(fraction=1.5)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(D)])
        model.compile("adam", "mse")
        with pytest.raises(ValueError, match="found none"):
            fit(model, *table, [MeanWarmUp()])


class BetaItself(keras.losses.Loss):
    """Its value is its β: what a compiled step has read is in the history."""

    def __init__(self):
        super().__init__(name="beta_itself")
        self.beta = keras.Variable(0.3, trainable=False, dtype="float32")

    def call(self, y_true, y_pred):
        return 0.0 * keras.ops.mean(y_pred, axis=-1) + self.beta


class TestBetaAnnealing:
    @pytest.mark.parametrize("steps", [10, 2])
    def test_compiled_steps_see_it(self, table, steps):
        x, y = table
        model, _ = make()
        loss = BetaItself()
        model.compile("sgd", loss)
        annealing = BetaAnnealing(start=1.0, end=0.0, epochs=4, steps=steps)
        expected = [1.0, 0.75, 0.5, 0.25, 0.0, 0.0] if steps == 10 else [1, 1, 0.5, 0.5, 0, 0]
        if steps == 10:  # β moves by tenths
            expected = [1.0, 0.8, 0.5, 0.3, 0.0, 0.0]
        for _ in range(2):  # a second run begins anew
            options = {"validation_data": (x, y), "epochs": 6}
            history = fit(model, x, y, [annealing], **options).history
            for key in ("loss", "val_loss", "beta"):
                np.testing.assert_allclose(history[key], expected, atol=1e-6, err_msg=key)
        assert float(loss.beta.value) == 0.0

    def test_it_needs_a_beta(self, table):
        model, _ = make()
        with pytest.raises(ValueError, match="beta is a keras.Variable"):
            fit(model, *table, [BetaAnnealing()])


class TestWarnOnOverfitting:
    def run(self, train, val, **options):
        callback = WarnOnOverfitting(event_size=2, **options)
        callback.on_train_begin()
        for epoch, (a, b) in enumerate(zip(train, val, strict=True)):
            callback.on_epoch_end(epoch, {"loss": a, "val_loss": b})
        return callback

    def test_the_criterion(self):
        train = [3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2]
        with pytest.warns(OverfittingWarning, match="since epoch 2") as caught:
            callback = self.run(train, [3.0, 2.0, 2.21, 2.3, 2.4, 2.5, 9.0])
        assert callback.parted_at == 1
        assert len(caught) == 1
        assert "0.2 nats per target" in str(caught[0].message)

    @pytest.mark.parametrize(
        ("train", "val"),
        [
            ([3, 2, 1, 0.5, 0.4, 0.3], [3, 2, 2.1, 2.15, 2.19, 2.19]),  # within the tolerance
            ([3, 2, 2.1, 2.2, 2.3, 2.4], [3, 2, 3, 4, 5, 6]),  # training gets worse too
            ([3, 2, 1, 0.5, 0.4, 0.3], [3, 2, 9, 9, 1.9, 9]),  # two bad epochs at a time
            ([np.nan] * 6, [np.nan] * 6),
        ],
    )
    def test_no_false_alarm(self, train, val):
        assert self.run(train, val).parted_at is None

    @pytest.mark.once
    def test_a_small_table_overfits_and_a_large_one_does_not(self, rng):
        x = rng.normal(size=(4096, 3)).astype("float32")
        y = (x[:, :D] + rng.normal(size=(4096, D))).astype("float32")
        for rows, expected in ((24, True), (2048, False)):
            keras.utils.set_random_seed(0)
            head = MultivariateNormalHead(D)
            head.adapt(y[:rows])
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(64, "gelu"), head])
            model.compile(keras.optimizers.Adam(0.01), NegativeLogLikelihood())
            callback = WarnOnOverfitting()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OverfittingWarning)
                fit(
                    model, x[:rows], y[:rows], [callback],
                    epochs=60 if expected else 4, batch_size=64,
                    validation_data=(x[3584:], y[3584:]), validation_batch_size=512,
                )  # fmt: skip
            assert (callback.parted_at is not None) is expected

    def test_nothing_to_watch(self, table):
        with pytest.warns(UserWarning, match="monitored nothing"):
            fit(make()[0], *table, [WarnOnOverfitting()])

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="tolerance=-1"):
            WarnOnOverfitting(tolerance=-1)
        with pytest.raises(ValueError, match="patience=0"):
            WarnOnOverfitting(patience=0)


RUN = """
import os, signal, sys
import keras, numpy as np
from keras_mvn.callbacks import MeanWarmUp
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.losses import NegativeLogLikelihood

folder, result, kill_at, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 3)).astype("float32")
y = (x[:, :2] + rng.normal(size=(64, 2))).astype("float32")

class Rows(keras.utils.PyDataset):
    epoch = 0  # set as an epoch begins, so that its order depends on nothing before it
    def __len__(self):
        return 8
    def __getitem__(self, i):
        rows = np.random.default_rng(self.epoch).permutation(64)[8 * i : 8 * i + 8]
        return x[rows], y[rows]

keras.utils.set_random_seed(seed)  # the resumed process may have any
head = MultivariateNormalHead(2)
head.adapt(y)
layers = [keras.layers.Dense(8, "gelu"), keras.layers.Dropout(0.3), keras.layers.Dense(8, "gelu")]
model = keras.Sequential([keras.Input((3,)), *layers, head])
model.compile(keras.optimizers.Adam(0.01), NegativeLogLikelihood())
rows, seen = Rows(), [0]

def begin(epoch, logs=None):
    rows.epoch = epoch
    keras.utils.set_random_seed(epoch)  # dropout on PyTorch
    layers[1].seed_generator.state.assign([epoch, 0])  # elsewhere; Keras saves neither

def count(batch, logs=None):
    seen[0] += 1
    if seen[0] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

model.fit(rows, epochs=4, shuffle=False, verbose=0, callbacks=[
    keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False),
    MeanWarmUp(epochs=2),
    keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_train_batch_end=count),
])
np.savez(result, *[keras.ops.convert_to_numpy(v) for v in model.weights])
"""


@pytest.mark.slow
@pytest.mark.parametrize(  # in the warm-up's second epoch, and after it
    "kill_at", [13, pytest.param(29, marks=pytest.mark.full)]
)
@pytest.mark.elsewhere(False)
@pytest.mark.filterwarnings("ignore")
def test_backup_and_restore_after_a_kill_is_exact(tmp_path, kill_at, monkeypatch):
    """Backups by epoch; rows and dropout that depend on the epoch's number alone; any seed."""

    def arguments(folder, result, kill, seed):
        return [str(tmp_path / folder), str(tmp_path / result), str(kill), str(seed)]

    def run_here(*given):
        keras.utils.clear_session()  # layers are named as in a new process
        monkeypatch.setattr(sys, "argv", ["-c", *arguments(*given)])
        exec(RUN, {})

    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, *arguments("b", "none.npz", kill_at, 1)],
        env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "none.npz").exists()
    run_here("b", "resumed.npz", 0, 2)
    run_here("a", "whole.npz", 0, 1)
    want, got = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "resumed.npz")
    assert want.files == got.files
    for name in want.files:
        np.testing.assert_array_equal(got[name], want[name])
