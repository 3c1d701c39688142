"""The head for mixtures, and its loss: SciPy, finite differences and known truths."""

import keras
import numpy as np
import pytest
from scipy import special, stats

import oracle
from differentiation import numpy, rows_and_gradient, tensor
from keras_mvn import Mixture, covariances, layouts, losses, metrics, ops
from keras_mvn.layers import MultivariateMixtureHead, MultivariateNormalHead
from keras_mvn.layers._clusters import clusters

D, N, ROWS = 3, 2, 5
STRUCTURES = [covariances.Cholesky(), covariances.LowRank(1), covariances.Diagonal()]
each_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: s.name)
each_family = pytest.mark.parametrize("family", ["packed", "student_t"])


def predictions(structure, family, rng, rows=ROWS, n=N):
    blocks = []
    for _ in range(n):
        parts = [
            rng.normal(size=(rows, D)),
            np.exp(0.3 * rng.normal(size=(rows, D))),
            0.5 * rng.normal(size=(rows, structure.shape_size(D))),
        ]
        blocks.append(np.concatenate(parts, axis=1))
        if family == "student_t":
            blocks.append(2.5 + rng.gamma(2.0, size=(rows, 1)))
    return np.concatenate([rng.normal(size=(rows, n)), *blocks], axis=1)


def log_density(structure, family, y, row, n=N):
    """log p of the observed part of y, by SciPy."""
    here = ~np.isnan(y)
    if not here.any():
        return 0.0
    width = (len(row) - n) // n
    terms = []
    for i in range(n):
        block = row[n + i * width : n + (i + 1) * width]
        k = structure.shape_size(D)
        mean, scale, shape = block[:D], block[D : 2 * D], block[2 * D : 2 * D + k]
        sigma = np.asarray(structure.covariance(scale, shape))[np.ix_(here, here)]
        if family == "student_t":
            terms.append(stats.multivariate_t(mean[here], sigma, df=block[-1]).logpdf(y[here]))
        else:
            terms.append(stats.multivariate_normal(mean[here], sigma).logpdf(y[here]))
    return special.logsumexp(special.log_softmax(row[:n]) + np.array(terms))


def with_gaps(rng):
    y = rng.normal(size=(ROWS, D))
    y[1, 0] = y[2, 1:] = np.nan
    y[3] = np.nan
    return y


def loss_of(structure, family, **options):
    return losses.MixtureNegativeLogLikelihood(N, structure, family, **options)


class TestLoss:
    @each_structure
    @each_family
    @pytest.mark.parametrize("fused", [None, False])
    @pytest.mark.elsewhere(fused=[None])
    def test_it_is_scipys_density_with_gaps(self, structure, family, fused, rng):
        y, y_pred = with_gaps(rng), predictions(structure, family, rng)
        loss = loss_of(structure, family, missing="marginalize", reduction=None, fused=fused)
        found = numpy(loss(tensor(y), tensor(y_pred)))
        expected = [-log_density(structure, family, *pair) for pair in zip(y, y_pred, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
        suffix = "" if family == "packed" else "_student_t"
        layout = f"mixture_{N}{suffix}"
        read = {"covariance": structure, "layout": layout, "missing": "marginalize"}
        np.testing.assert_allclose(
            numpy(ops.log_prob(tensor(y), tensor(y_pred), **read)), -found, rtol=1e-5, atol=1e-5
        )
        metric = metrics.NegativeLogLikelihood(**read)
        metric.update_state(tensor(y), tensor(y_pred))
        seen = ~np.isnan(y).all(axis=1)
        assert float(metric.result()) == pytest.approx(found[seen].mean(), rel=1e-5)

    @each_structure
    @each_family
    def test_gradient(self, structure, family, rng):
        y, y_pred = with_gaps(rng), predictions(structure, family, rng)
        loss = loss_of(structure, family, missing="marginalize", reduction=None)
        _, gradient = rows_and_gradient(lambda p: loss(tensor(y), p), y_pred)
        expected = oracle.central_difference(
            lambda p: -sum(log_density(structure, family, *one) for one in zip(y, p, strict=True)),
            y_pred,
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)

    def test_components_far_from_y_change_nothing(self):
        """Neither infinite nor NaN where all densities underflow."""
        y_pred = np.array([[0.0, 0.0, 1e4, 1.0, -1e4, 1.0]])
        loss = losses.MixtureNegativeLogLikelihood(2, "diagonal", reduction=None)
        rows, gradient = rows_and_gradient(lambda p: loss(tensor([[0.0]]), p), y_pred)
        np.testing.assert_allclose(rows, 0.5e8 + 0.5 * np.log(2 * np.pi), rtol=1e-6)
        assert np.isfinite(gradient).all()

    def test_weights_and_units(self, rng):
        structure = covariances.Cholesky()
        y, y_pred = rng.normal(size=(ROWS, D)), predictions(structure, "packed", rng)
        weight = np.array([1.0, 0.0, 2.0, 0.5, 1.0])
        y[1] = np.nan
        loss = loss_of(structure, "packed")
        rows = [-log_density(structure, "packed", *one) for one in zip(y, y_pred, strict=True)]
        expected = np.nansum(weight * np.nan_to_num(rows)) / ROWS
        assert float(loss(tensor(y), tensor(y_pred), tensor(weight))) == pytest.approx(
            expected, rel=1e-4
        )

    @pytest.mark.once
    def test_penalties_are_means_over_components(self, rng):
        from keras_mvn.regularizers import CovarianceL2

        structure = covariances.Cholesky()
        y, y_pred = rng.normal(size=(ROWS, D)), predictions(structure, "packed", rng)
        penalty = CovarianceL2(0.3)
        with_it = loss_of(structure, "packed", regularizer=penalty, reduction=None)
        without = loss_of(structure, "packed", reduction=None)
        found = numpy(with_it(tensor(y), tensor(y_pred)) - without(tensor(y), tensor(y_pred)))
        width = (y_pred.shape[1] - N) // N
        blocks = [tensor(y_pred[:, N + i * width : N + (i + 1) * width]) for i in range(N)]
        read = [layouts.Reader(structure, False, "packed").decode(block) for block in blocks]
        expected = np.mean([numpy(penalty(structure, one)) for one in read], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.once
    def test_what_does_not_fit_is_refused(self, rng):
        y = rng.normal(size=(ROWS, D))
        y_pred = predictions(covariances.Cholesky(), "packed", rng)
        with pytest.raises(ValueError, match="2 logits, then 2 times"):
            loss_of("cholesky", "packed")(tensor(y), tensor(y_pred[:, 1:]))
        with pytest.raises(ValueError, match="holds mixtures"):
            losses.NegativeLogLikelihood(layout="mixture_2")(tensor(y), tensor(y_pred))
        with pytest.raises(ValueError, match="component_layout='stacked'"):
            losses.MixtureNegativeLogLikelihood(2, component_layout="stacked")
        with pytest.raises(ValueError, match="mixture_<n>"):
            layouts.get("mixture_0")
        head = MultivariateMixtureHead(D, 2)
        written = head(tensor(rng.normal(size=(ROWS, 4))))
        with pytest.raises(ValueError, match="layout='mixture_2'"):
            losses.NegativeLogLikelihood()(tensor(y), written)
        with pytest.raises(ValueError, match=r"Use MixtureNegativeLogLikelihood\(2, covariance="):
            losses.MixtureNegativeLogLikelihood(3)(tensor(y), written)

    @pytest.mark.once
    def test_config(self):
        loss = loss_of(covariances.LowRank(2), "student_t", missing="marginalize")
        again = losses.MixtureNegativeLogLikelihood.from_config(loss.get_config())
        assert again.get_config() == loss.get_config()
        assert again.reader.layout.name == "mixture_2_student_t"


def two_modes(rng, n=600):
    """y is near +m(x) or −m(x), with probabilities and correlations of x."""
    x = rng.normal(size=(n, 2)).astype(np.float32)
    sign = np.where(rng.random(n) < special.expit(x[:, 1]), 1.0, -1.0)
    mean = 3.0 + np.sin(x[:, 0])
    noise = rng.multivariate_normal([0, 0], [[0.04, 0.03], [0.03, 0.04]], size=n)
    return x, 100.0 * (sign[:, None] * np.stack([mean, mean], axis=1) + noise)


def entropy_of_two_modes(x):
    p = special.expit(x[:, 1])
    of_sign = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    return of_sign + stats.multivariate_normal([0, 0], [[400, 300], [300, 400]]).entropy()


class TestHead:
    @pytest.mark.slow
    def test_it_learns_two_modes(self, rng):
        x, y = two_modes(rng)
        head = MultivariateMixtureHead(2, 2)
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, "gelu"), head])
        model.compile(keras.optimizers.Adam(1e-2), losses.MixtureNegativeLogLikelihood(2))
        model.fit(x, y, epochs=40, batch_size=32, verbose=0)
        fresh, expected = two_modes(np.random.default_rng(1), 2000)
        mixture = head.distribution(model.predict(fresh, verbose=0))
        assert isinstance(mixture, Mixture)
        nll = -mixture.log_prob(expected).mean()
        assert nll < entropy_of_two_modes(fresh) + 0.6  # a normal with x: 2.1 more
        one_normal = 0.5 * (2 * np.log(2 * np.pi) + 2 + np.linalg.slogdet(np.cov(y.T))[1])
        assert nll < one_normal - 1.5
        # Weights follow x, up to the order of the components.
        upper = np.argmax([one.mean[:, 0].mean() for one in mixture.components])
        error = np.abs(mixture.weights[upper] - special.expit(fresh[:, 1])).mean()
        assert error < 0.08

    @each_family
    @pytest.mark.once
    def test_it_starts_at_modes(self, family, rng):
        _, y = two_modes(rng)
        options = {} if family == "packed" else {"degrees_of_freedom": "per_row"}
        head, one = MultivariateMixtureHead(2, 3, **options), MultivariateNormalHead(2, **options)
        scores = []
        for each in (head, one):
            each.adapt(y)
            each.build((None, 2))
            for variable in each.trainable_variables:
                if variable.name == "kernel":
                    variable.assign(np.zeros(variable.shape))
            y_pred = numpy(each(tensor(np.zeros((1, 2)))))
            scores.append(each.distribution(y_pred).log_prob(y).mean())
        assert scores[0] > scores[1] + 0.5
        first = head.distribution(numpy(head(tensor(np.zeros((1, 2)))))).components[0]
        np.testing.assert_allclose(first.mean[0], y.mean(axis=0), rtol=1e-4)

    @pytest.mark.once
    @pytest.mark.parametrize("size", [1e3, 1e9, 1e20])
    def test_one_row_gets_no_component(self, size, rng):
        _, y = two_modes(rng)
        with_glitch = y.copy()
        with_glitch[7, 1] = size * 100.0
        starts = []
        for rows in (y, with_glitch):
            head = MultivariateMixtureHead(2, 3)
            with pytest.warns(UserWarning, match="far from all") if rows is not y else _nothing():
                head.adapt(rows)
            starts.append([numpy(one.origin_mean) for one in head.components])
        np.testing.assert_allclose(*starts, atol=5.0)  # of means of ±300

    @pytest.mark.once
    def test_repeated_rows_have_no_narrow_component(self, rng):
        y = np.repeat(rng.normal(size=(3, 2)), 200, axis=0)
        head = MultivariateMixtureHead(2, 3)
        head.adapt(head.summarize(y))
        first, *others = (numpy(one.origin_scale) for one in head.components)
        assert all((one >= 0.049 * first).all() for one in others)

    @pytest.mark.once
    def test_units_and_gaps(self, rng):
        _, y = two_modes(rng)
        y[rng.random(y.shape) < 0.2] = np.nan
        y[np.isnan(y).all(axis=1), 0] = 300.0
        starts = []
        for unit in (1.0, 1e-20, 1e20):
            head = MultivariateMixtureHead(2, 3)
            head.adapt(y * unit)
            starts.append([numpy(one.origin_scale) / unit for one in head.components])
        np.testing.assert_allclose(starts[1], starts[0], rtol=1e-3)
        np.testing.assert_allclose(starts[2], starts[0], rtol=1e-3)

    def test_saved_and_cloned(self, rng, tmp_path):
        x, y = two_modes(rng, 100)
        head = MultivariateMixtureHead(
            2, 3, covariances.LowRank(1), ["a", "b"], degrees_of_freedom="constant"
        )
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), head])
        model.compile(
            "sgd", losses.MixtureNegativeLogLikelihood(3, covariances.LowRank(1), "student_t")
        )
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(
            again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5
        )
        clone = keras.models.clone_model(model)
        for one, other in zip(clone.layers[-1].components, head.components, strict=True):
            np.testing.assert_allclose(numpy(one.origin_mean), numpy(other.origin_mean))
        np.testing.assert_allclose(numpy(clone.layers[-1].origin_logits), numpy(head.origin_logits))
        mixture = again.layers[-1].distribution(again.predict(x, verbose=0))
        assert list(mixture.target_names) == ["a", "b"]

    def test_what_is_answered_is_what_was_learned(self, rng):
        x, y = two_modes(rng, 50)
        head = MultivariateMixtureHead(2, 2)
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), head])
        model.compile("sgd", losses.MixtureNegativeLogLikelihood(2))
        y_pred = model.predict(x, verbose=0)
        density = head.distribution(y_pred).log_prob(y).mean()
        with_penalty = model.evaluate(x, y, verbose=0)
        assert with_penalty == pytest.approx(-density, rel=1e-4)
        conditioned = head.distribution(y_pred).condition({0: y[:, 0]})
        assert np.median(conditioned.weights.max(axis=0)) > 0.9  # y₀ says which mode it is

    @pytest.mark.once
    def test_sequences_and_masks(self, rng):
        x, y = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 2))
        mask = np.arange(6) < 3
        inputs = keras.Input((6, 2))
        masked = keras.layers.Masking(99.0)(inputs)
        head = MultivariateMixtureHead(2, 2)
        head.adapt(y)
        model = keras.Model(inputs, head(masked))
        model.compile("sgd", losses.MixtureNegativeLogLikelihood(2))
        x[:, ~mask], y[:, ~mask] = 99.0, np.nan
        assert np.isfinite(model.evaluate(x, y, verbose=0))
        density = head.distribution(model.predict(x, verbose=0)[:, mask]).log_prob(y[:, mask])
        assert model.evaluate(x, y, verbose=0) == pytest.approx(-density.mean(), rel=1e-4)


@pytest.mark.once
class TestClusters:
    def test_they_are_found(self, rng):
        truth = rng.integers(0, 3, 500)
        rows = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0]])[truth] + rng.normal(size=(500, 2))
        found = clusters(rows, 3, 10)
        table = np.array(
            [[np.sum((found == i) & (truth == j)) for j in range(3)] for i in range(3)]
        )
        assert table.max(axis=1).sum() > 490

    def test_a_row_alone_is_no_cluster(self, rng):
        rows = rng.normal(size=(300, 2))
        rows[0] = 50.0
        assert (
            np.bincount(clusters(rows, 2, 10)).min() >= 10
            or len(np.unique(clusters(rows, 2, 10))) == 1
        )

    def test_equal_rows(self):
        assert set(clusters(np.ones((30, 2)), 3, 10)) == {0}


def _nothing():
    import contextlib

    return contextlib.nullcontext()
