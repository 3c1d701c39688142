"""Losses: values, weights, masks, layouts, errors, saving."""

import json

import keras
import numpy as np
import pytest

import keras_mvn as kmvn
import oracle
from differentiation import EPSILON, numpy, precision, tensor, value_and_gradients
from keras_mvn import covariances, losses, regularizers
from predictions import oracle_nll, packed
from structures import PLAIN

pytestmark = pytest.mark.widths

D = 3


@pytest.mark.parametrize("name", PLAIN)
class TestValue:
    def test_per_row(self, name, dtype, rng):
        y, y_pred = rng.normal(size=(6, D)), packed(name, 6, rng)
        loss = losses.NegativeLogLikelihood(name, reduction=None)
        got = numpy(loss(tensor(y, dtype), tensor(y_pred, dtype)))
        assert got.dtype == dtype
        np.testing.assert_allclose(
            got, oracle_nll(name, y, y_pred), rtol=200 * EPSILON[dtype], atol=50 * EPSILON[dtype]
        )

    @pytest.mark.parametrize(
        "reduction", ["sum", "mean", "sum_over_batch_size", "mean_with_sample_weight"]
    )
    @pytest.mark.parametrize("weighted", [False, True])
    def test_reductions_are_keras_own(self, name, reduction, weighted, rng):
        y, y_pred = rng.normal(size=(6, D)), packed(name, 6, rng)
        weight = rng.uniform(0.5, 2, size=6) if weighted else None
        rows = oracle_nll(name, y, y_pred)
        used = rows if weight is None else rows * weight
        divisor = {"sum": 1.0, "mean_with_sample_weight": np.sum(weight) if weighted else 6}
        expected = used.sum() / divisor.get(reduction, 6)
        loss = losses.NegativeLogLikelihood(name, reduction=reduction)
        assert float(loss(y, y_pred, weight)) == pytest.approx(expected, rel=1e-5)
        if weighted:
            assert float(loss(y, y_pred, weight[:, None])) == pytest.approx(expected, rel=1e-5)


class TestRowsWithoutWeight:
    y_pred = packed("cholesky", 4, np.random.default_rng(1))

    def gradient(self, y, weight):
        loss = losses.NegativeLogLikelihood()

        def value(y_pred):
            return loss(tensor(y), y_pred, weight)

        return value_and_gradients(value, self.y_pred)

    @pytest.mark.parametrize("shape", [(4,), (4, 1)], ids=str)
    def test_nan_of_weight_zero_has_no_effect(self, shape, rng):
        y = rng.normal(size=(4, D))
        weight = np.array([1.0, 0.0, 2.0, 1.0])
        value, (gradient,) = self.gradient(y, weight.reshape(shape))
        y[1] = np.nan
        hidden_value, (hidden,) = self.gradient(y, weight.reshape(shape))
        assert hidden_value == value
        np.testing.assert_array_equal(hidden, gradient)
        assert not hidden[1].any()

    def test_nan_of_positive_weight_is_loud(self, rng):
        y = rng.normal(size=(4, D))
        y[1, 0] = np.nan
        value, _ = self.gradient(y, np.ones(4))
        assert np.isnan(value)

    @pytest.mark.parametrize("rows", [3, 4])  # 3 = D: it would broadcast
    def test_weights_per_target_are_refused(self, rows, rng):
        y, y_pred = rng.normal(size=(rows, D)), tensor(self.y_pred[:rows])
        for reader in (losses.NegativeLogLikelihood(), kmvn.metrics.NegativeLogLikelihood()):
            with pytest.raises(ValueError, match="sample_weight has shape.*one number per row"):
                getattr(reader, "update_state", reader)(y, y_pred, np.ones((rows, D)))

    @pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight"])
    def test_weights_of_whole_sequences(self, reduction, rng):
        # (n,) against rows (n, t) with n = t, where plain broadcasting would weigh the steps.
        y, y_pred = rng.normal(size=(2, 2, D)), self.y_pred.reshape(2, 2, -1)
        weight = np.array([1.0, 3.0])
        rows = oracle_nll("cholesky", y.reshape(4, D), self.y_pred).reshape(2, 2)
        expected = (rows * weight[:, None]).sum()
        expected /= {"sum": 1, "mean": 4, "mean_with_sample_weight": 8}[reduction]
        loss = losses.NegativeLogLikelihood(reduction=reduction)
        assert float(loss(y, tensor(y_pred), weight)) == pytest.approx(expected, rel=1e-5)
        metric = kmvn.metrics.NegativeLogLikelihood()
        metric.update_state(y, tensor(y_pred), weight)
        total = (rows * weight[:, None]).sum() / 8
        assert float(metric.result()) == pytest.approx(total, rel=1e-5)

    def test_masked_steps_weigh_nothing(self, rng):
        y = rng.normal(size=(2, 2, D))
        y_pred = tensor(self.y_pred.reshape(2, 2, -1))
        mask = np.array([[True, False], [True, True]])
        y[0, 1] = np.nan
        y_pred._keras_mask = None if keras.backend.backend() == "jax" else tensor(mask, "bool")
        if keras.backend.backend() == "jax":
            from keras.src.backend.common.masking import set_keras_mask

            set_keras_mask(y_pred, tensor(mask, "bool"))
        rows = oracle_nll("cholesky", y.reshape(4, D)[[0, 2, 3]], self.y_pred[[0, 2, 3]])
        got = losses.NegativeLogLikelihood()(y, y_pred)
        assert float(got) == pytest.approx(rows.mean(), rel=1e-5)


class TestShapes:
    def test_an_empty_batch_is_zero_with_zero_gradient(self):
        loss = losses.NegativeLogLikelihood()
        y = np.zeros((0, D))
        value, (gradient,) = value_and_gradients(lambda p: loss(tensor(y), p), np.zeros((0, 9)))
        assert value == 0.0
        assert gradient.shape == (0, 9)

    @pytest.mark.parametrize("shape", [(5,), (5, 1)], ids=str)
    def test_one_target_with_or_without_an_axis(self, shape, rng):
        y, y_pred = rng.normal(size=5), packed("cholesky", 5, rng, d=1)
        expected = oracle_nll("cholesky", y[:, None], y_pred, d=1).mean()
        got = losses.NegativeLogLikelihood()(y.reshape(shape), y_pred)
        assert float(got) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        "shape", [(5,), (5, 1), (5, 1, 3), (5, 2), (3,), (1, 3), (4, 3)], ids=str
    )
    def test_nothing_is_broadcast(self, shape, rng):
        y_pred = packed("cholesky", 5, rng)
        with pytest.raises(ValueError, match=r"y_true has shape .* y_pred has shape \(5, 9\)"):
            losses.NegativeLogLikelihood()(np.zeros(shape), y_pred)

    def test_a_width_that_fits_no_d_says_what_would(self):
        with pytest.raises(ValueError, match=r"\(5, 10\).*needs 9 numbers for 3 targets"):
            losses.NegativeLogLikelihood()(np.zeros((5, 3)), np.zeros((5, 10)))

    def test_a_wrong_width_says_what_y_true_needs(self):
        with pytest.raises(ValueError, match=r"needs 14 numbers for 4 targets"):
            losses.NegativeLogLikelihood()(np.zeros((5, 4)), np.zeros((5, 9)))

    @pytest.mark.parametrize("kind", ["int32", "int64", "uint8", "float64"])
    def test_other_dtypes_of_y_are_accepted(self, kind, rng):
        y, y_pred = np.arange(15).reshape(5, 3), packed("cholesky", 5, rng)
        got = losses.NegativeLogLikelihood()(y.astype(kind), tensor(y_pred))
        assert float(got) == pytest.approx(oracle_nll("cholesky", y, y_pred).mean(), rel=1e-5)

    def test_booleans_are_accepted_with_a_warning(self, rng):
        with pytest.warns(UserWarning, match="boolean"):
            losses.NegativeLogLikelihood()(np.ones((5, 3), bool), packed("cholesky", 5, rng))

    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    def test_units_at_the_ends_of_float32(self, unit, rng):
        y, y_pred = rng.normal(size=(5, D)), packed("cholesky", 5, rng)
        expected = oracle_nll("cholesky", y, y_pred).mean() + D * np.log(unit)
        y_pred[:, : 2 * D] *= unit
        loss = losses.NegativeLogLikelihood()
        value, (gradient,) = value_and_gradients(lambda p: loss(tensor(y * unit), p), y_pred)
        assert value == pytest.approx(expected, rel=1e-5)
        assert np.isfinite(gradient).all()
        assert (gradient[:, : 2 * D] != 0).all()


class TestFromRaw:
    @pytest.mark.parametrize("name", PLAIN)
    def test_it_applies_the_link(self, name, rng):
        structure = covariances.get(name)
        raw = rng.normal(size=(5, D + structure.raw_size(D)))
        y = rng.normal(size=(5, D))
        scale, shape_params = structure.constrain(raw[:, D:], D)
        y_pred = np.concatenate([raw[:, :D], scale, shape_params], axis=-1)
        got = losses.NegativeLogLikelihood(name, from_raw=True)(y, tensor(raw))
        assert float(got) == pytest.approx(oracle_nll(name, y, y_pred).mean(), rel=2e-4)

    def test_a_wrong_width_names_the_raw_size(self):
        with pytest.raises(ValueError, match=r"needs 3 numbers for the mean and 1 for the cov"):
            losses.NegativeLogLikelihood("isotropic", from_raw=True)(
                np.zeros((5, 3)), np.zeros((5, 9))
            )


class TestLayouts:
    def stacked(self, rng):
        """mean | matrix of any real numbers, as a Dense and a Reshape give it."""
        return rng.normal(size=(5, D, 1 + D)), rng.normal(size=(5, D))

    def test_valid_factor(self, rng):
        y_pred, y = self.stacked(rng)
        factor = np.tril(y_pred[..., 1:])
        index = np.arange(D)
        factor[:, index, index] = np.abs(factor[:, index, index]) + 0.5
        upper_noise = np.triu(y_pred[..., 1:], 1)  # takes no part
        y_pred[..., 1:] = factor + upper_noise
        expected = np.mean(
            [-_density(t, p[:, 0], f @ f.T) for t, p, f in zip(y, y_pred, factor, strict=True)]
        )
        got = losses.NegativeLogLikelihood("cholesky", layout="stacked")(y, tensor(y_pred))
        assert float(got) == pytest.approx(expected, rel=1e-5)

    def test_valid_covariance(self, rng):
        y_pred, y = self.stacked(rng)
        sigma = y_pred[..., 1:] @ np.swapaxes(y_pred[..., 1:], -1, -2) + np.eye(D)
        y_pred[..., 1:] = sigma
        expected = np.mean(
            [-_density(t, p[:, 0], s) for t, p, s in zip(y, y_pred, sigma, strict=True)]
        )
        got = losses.NegativeLogLikelihood("symmetric", layout="stacked")(y, tensor(y_pred))
        assert float(got) == pytest.approx(expected, rel=1e-4)

    def test_unconstrained_symmetric_is_the_spectral_map(self, rng):
        y_pred, y = self.stacked(rng)
        matrix = y_pred[..., 1:]
        symmetric = 0.5 * (matrix + np.swapaxes(matrix, -1, -2))
        sigma = [oracle.spectral_covariance(m[np.tril_indices(D)], D) for m in symmetric]
        expected = np.mean(
            [-_density(t, p[:, 0], s) for t, p, s in zip(y, y_pred, sigma, strict=True)]
        )
        got = losses.NegativeLogLikelihood("symmetric", from_raw=True, layout="stacked")(
            y, tensor(y_pred)
        )
        assert float(got) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("name", ["cholesky", "precision_cholesky"])
    def test_unconstrained_factor_never_reads_the_upper_triangle(self, name, rng):
        y_pred, y = self.stacked(rng)
        loss = losses.NegativeLogLikelihood(name, from_raw=True, layout="stacked")
        value, (gradient,) = value_and_gradients(lambda p: loss(tensor(y), p), y_pred)
        assert np.isfinite(value)
        assert not np.triu(gradient[..., 1:], 1).any()
        assert gradient[..., 1:][:, np.tril_indices(D)[0], np.tril_indices(D)[1]].all()

    def test_mean_log_variance(self, rng):
        y_pred, y = rng.normal(size=(5, 2 * D)), rng.normal(size=(5, D))
        expected = np.mean(
            [-_density(t, p[:D], np.diag(np.exp(p[D:]))) for t, p in zip(y, y_pred, strict=True)]
        )
        loss = losses.NegativeLogLikelihood(layout="mean_log_variance")
        assert float(loss(y, tensor(y_pred))) == pytest.approx(expected, rel=1e-5)
        assert loss.reader.covariance == covariances.Diagonal()

    @pytest.mark.parametrize("value", [-1e4, -300.0, 300.0, 1e4])
    def test_large_log_variances_stay_finite(self, value):
        y_pred = np.full((1, 2 * D), value)
        y_pred[:, :D] = 0.0
        loss = losses.NegativeLogLikelihood(layout="mean_log_variance")
        total, (gradient,) = value_and_gradients(
            lambda p: loss(tensor(np.full((1, D), 1e-3)), p), y_pred
        )
        assert np.isfinite(total)
        assert np.isfinite(gradient).all()

    def test_a_layout_that_implies_another_structure(self):
        with pytest.raises(ValueError, match="implies covariance='diagonal'"):
            losses.NegativeLogLikelihood("precision_cholesky", layout="mean_log_variance")

    def test_an_unknown_layout_lists_the_known(self):
        with pytest.raises(ValueError, match="mean_log_variance.*packed.*stacked"):
            losses.NegativeLogLikelihood(layout="stack")

    def test_a_stack_that_is_not_square(self):
        with pytest.raises(ValueError, match=r"the mean in column 0"):
            losses.NegativeLogLikelihood(layout="stacked")(np.zeros((5, 3)), np.zeros((5, 3, 3)))


def _density(y, mean, sigma):
    import scipy.stats

    return scipy.stats.multivariate_normal(mean, sigma).logpdf(y)


class TestSaving:
    changed = {
        "covariance": "precision_cholesky",
        "from_raw": True,
        "layout": "stacked",
        "regularizer": regularizers.CovarianceL1(0.3, on="covariance", off_diagonal=False),
        "reduction": "sum",
        "name": "mine",
        "dtype": "float64",
    }

    def test_every_argument_survives(self, rng):
        with precision("float64"):
            self.check_every_argument(rng)

    def check_every_argument(self, rng):
        loss = losses.NegativeLogLikelihood(**self.changed)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == loss.get_config()
        default = losses.NegativeLogLikelihood().get_config()
        assert all(again.get_config()[key] != default[key] for key in self.changed)
        y, y_pred = rng.normal(size=(4, 2)), rng.normal(size=(4, 2, 3))
        assert float(again(y, y_pred)) == float(loss(y, y_pred))

    def test_half_precision_is_raised_to_float32(self, rng):
        y, y_pred = rng.normal(size=(4, D)), packed("cholesky", 4, rng)
        loss = losses.NegativeLogLikelihood(reduction=None)
        assert numpy(loss(y, tensor(y_pred, "float16"))).dtype == "float32"


class TestTag:
    def head_output(self, covariance):
        head = kmvn.layers.MultivariateNormalHead(D, covariance)
        return head(tensor(np.ones((4, 2))))

    @pytest.mark.parametrize("name", ["precision_cholesky", "diagonal"])
    def test_a_disagreement_is_loud(self, name):
        y_pred = self.head_output("cholesky")
        for reader in (losses.NegativeLogLikelihood(name), kmvn.metrics.Coverage(0.9, name)):
            with pytest.raises(ValueError, match=f"reads covariance='{name}'.*writes"):
                getattr(reader, "update_state", reader)(np.zeros((4, D)), y_pred)

    def test_structures_with_one_wire_format_agree(self):
        losses.NegativeLogLikelihood("cholesky")(np.zeros((4, D)), self.head_output("symmetric"))
        losses.NegativeLogLikelihood("diagonal")(np.zeros((4, D)), self.head_output("isotropic"))

    def test_from_raw_on_a_head_is_loud(self):
        with pytest.raises(ValueError, match="from_raw"):
            losses.NegativeLogLikelihood(from_raw=True)(
                np.zeros((4, D)), self.head_output("cholesky")
            )
