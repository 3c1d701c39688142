"""Mixtures against brute force, SciPy and Monte Carlo; deep ensembles against Keras' own `fit`."""

import itertools
import json
import random
import tracemalloc

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats

import keras_mvn as kmvn
from differentiation import numpy
from keras_mvn import MultivariateNormal
from keras_mvn.covariances import LowRank
from keras_mvn.distributions import Mixture
from keras_mvn.ensemble import DeepEnsemble
from structures import STRUCTURES, named

K, N, D = 3, 5, 4
WEIGHTS = np.array([0.5, 0.2, 0.3])
BACKEND = keras.backend.backend()
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="members are trained in one pass on JAX only")


# --- mixtures -----------------------------------------------------------------------------------


def components_of(structure, rng, batch=(K, N), d=D):
    """Random distributions of this structure."""
    scale = rng.uniform(0.5, 2.0, size=(*batch, d))
    if structure.name == "isotropic":
        scale[...] = scale[..., :1]
    packed = 0.7 * rng.normal(size=(*batch, structure.shape_size(d)))
    y_pred = np.concatenate([rng.normal(size=(*batch, d)), scale, packed], axis=-1)
    return MultivariateNormal.from_prediction(y_pred, structure)


@pytest.fixture
def mixture(rng):
    return Mixture(components_of(STRUCTURES[2], rng), WEIGHTS)


def parts(components, weights, row):
    """μ*, E[Σ] and Cov[μ] of one row, term by term."""
    means = [components[m, row].mean for m in range(len(weights))]
    matrices = [components[m, row].covariance for m in range(len(weights))]
    center = sum(w * m for w, m in zip(weights, means, strict=True))
    aleatoric = sum(w * s for w, s in zip(weights, matrices, strict=True))
    epistemic = sum(
        w * np.outer(m - center, m - center) for w, m in zip(weights, means, strict=True)
    )
    return center, aleatoric, epistemic


def log_density(components, weights, row, y):
    """By SciPy: logsumexp of the components' densities."""
    terms = [
        scipy.stats.multivariate_normal(components[m, row].mean, components[m, row].covariance)
        for m in range(len(weights))
    ]
    return scipy.special.logsumexp([t.logpdf(y) for t in terms], b=weights)


@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
class TestMixtureOfEveryStructure:
    def test_moments_are_those_of_brute_force(self, structure, rng):
        components = components_of(structure, rng)
        mixture = Mixture(components, WEIGHTS)
        normal = mixture.moments()
        for row in range(N):
            center, aleatoric, epistemic = parts(components, WEIGHTS, row)
            total = aleatoric + epistemic
            for got, expected in (
                (mixture.mean, center),
                (mixture.aleatoric, aleatoric),
                (mixture.epistemic, epistemic),
                (mixture.covariance, total),
                (mixture.variance, np.diag(total)),
                (mixture.stddev, np.sqrt(np.diag(total))),
                (mixture.aleatoric_stddev, np.sqrt(np.diag(aleatoric))),
                (mixture.epistemic_stddev, np.sqrt(np.diag(epistemic))),
                (normal.mean, center),
                (normal.covariance, total),
            ):
                np.testing.assert_allclose(got[row], expected, rtol=1e-10, atol=1e-12)

    def test_density_is_scipys(self, structure, rng):
        components = components_of(structure, rng)
        y = 2.0 * rng.normal(size=(N, D))
        expected = [log_density(components, WEIGHTS, row, y[row]) for row in range(N)]
        np.testing.assert_allclose(Mixture(components, WEIGHTS).log_prob(y), expected, rtol=1e-9)

    def test_samples_have_the_moments(self, structure, rng):
        components = components_of(structure, rng, batch=(K, 2))
        n = 40_000
        draws = Mixture(components, WEIGHTS).sample(n, seed=1)
        assert draws.shape == (n, 2, D)
        for row in range(2):
            center, aleatoric, epistemic = parts(components, WEIGHTS, row)
            sd = np.sqrt(np.diag(aleatoric + epistemic))
            assert np.abs((draws[:, row].mean(0) - center) / sd).max() < 5.0 / np.sqrt(n)
            deviation = draws[:, row] - center
            products = (deviation[:, :, None] * deviation[:, None, :]).reshape(n, -1)
            error = products.mean(0) - (aleatoric + epistemic).ravel()
            assert np.abs(error / (products.std(0) / np.sqrt(n))).max() < 5.0


class TestMixture:
    def test_averaging_standard_deviations_is_wrong(self):
        """Two networks, sure of themselves (σ = 1), that disagree by 4: drawn by hand."""
        components = MultivariateNormal([[-2.0], [2.0]], covariance=np.ones((2, 1, 1)))
        rng = np.random.default_rng(0)
        draws = np.where(rng.random(200_000) < 0.5, -2.0, 2.0) + rng.normal(size=200_000)
        error = draws.std() / np.sqrt(2.0 * len(draws))  # above the true standard error here
        mixture = Mixture(components)
        assert abs(mixture.stddev[0] - draws.std()) < 4.0 * error
        assert abs(mixture.moments().stddev[0] - draws.std()) < 4.0 * error
        averaged = components.stddev.mean()
        assert abs(averaged - draws.std()) > 300.0 * error
        inside = np.abs(draws) < 1.645 * averaged  # a "90 %" interval that holds 36 %
        assert inside.mean() < 0.4

    def test_the_distribution_of_samples(self, rng):
        """A skewed mixture with two humps, by Kolmogorov and Smirnov."""
        weights, means, sds = np.array([0.7, 0.3]), np.array([0.0, 5.0]), np.array([1.0, 0.5])
        components = MultivariateNormal(means[:, None], covariance=(sds**2)[:, None, None])
        draws = Mixture(components, weights).sample(20_000, seed=3)[:, 0]

        def distribution(t):
            return sum(
                w * scipy.stats.norm.cdf(t, m, s)
                for w, m, s in zip(weights, means, sds, strict=True)
            )

        assert scipy.stats.kstest(draws, distribution).pvalue > 1e-3
        assert scipy.stats.kstest(draws, lambda t: distribution(t - 0.1)).pvalue < 1e-6

    def test_every_row_and_draw_picks_its_own_component(self):
        mean = np.array([[[-100.0]] * 50, [[100.0]] * 50])
        mixture = Mixture(MultivariateNormal(mean, covariance=np.ones((2, 50, 1, 1))))
        sign = np.sign(mixture.sample(40, seed=0)[..., 0])
        assert abs(sign.mean()) < 5.0 / np.sqrt(2000)
        for axis in (0, 1):
            assert 0 < sign.mean(axis).std() < 0.5  # ±1 everywhere if rows or draws went together

    def test_samples_by_seed(self, mixture):
        np.testing.assert_array_equal(mixture.sample(3, seed=7), mixture.sample(3, seed=7))
        assert not np.array_equal(mixture.sample(3, seed=7), mixture.sample(3, seed=8))
        assert mixture.sample(seed=np.random.default_rng(0)).shape == (N, D)
        assert mixture[0].sample(seed=0).shape == (D,)
        assert mixture.sample(0).shape == (0, N, D)

    @pytest.mark.parametrize("condition", [1e4, 1e12, 1e20])
    def test_the_factor_survives_what_a_formed_covariance_does_not(self, condition, rng):
        """Equal components: Σ* = L Lᵀ, whose L is known exactly. κ(Σ) = 1e20 is not positive
        definite any more once it is formed in float64."""
        d = 5
        lower = np.tril(rng.normal(size=(d, d)), -1) + np.eye(d)
        factor = lower * np.geomspace(1.0, condition**-0.5, d)
        components = MultivariateNormal(np.ones((K, d)), scale_tril=np.stack([factor] * K))
        got = Mixture(components, WEIGHTS).moments().scale_tril
        bound = 50.0 * np.finfo(float).eps * np.sqrt(condition)
        np.testing.assert_allclose(got, factor, rtol=bound, atol=1e-14)

    def test_units_do_not_matter(self, rng):
        units = np.array([1e-12, 1.0, 1e12, 1e150])
        plain = components_of(STRUCTURES[2], rng)
        scaled = MultivariateNormal(
            plain.mean * units, scale_tril=plain.scale_tril * units[:, None]
        )
        expected = Mixture(plain, WEIGHTS).moments().scale_tril * units[:, None]
        got = Mixture(scaled, WEIGHTS).moments().scale_tril
        np.testing.assert_allclose(got / units[:, None], expected / units[:, None], atol=1e-12)

    def test_density_far_away(self, mixture):
        y = np.full((N, D), 1e5)
        expected = [log_density(mixture.components, WEIGHTS, row, y[row]) for row in range(N)]
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(mixture.log_prob(y), expected, rtol=1e-9)

    def test_density_integrates_to_one(self):
        components = MultivariateNormal([[0.0], [3.0]], covariance=[[[1.0]], [[0.25]]])
        t = np.linspace(-12.0, 12.0, 4001)
        density = np.exp(Mixture(components, [0.25, 0.75]).log_prob(t[:, None]))
        assert np.trapezoid(density, t) == pytest.approx(1.0, abs=1e-8)

    def test_density_of_many_y_for_every_row(self, mixture):
        y = mixture.sample(6, seed=0)
        got = mixture.log_prob(y)
        assert got.shape == (6, N)
        np.testing.assert_allclose(got[4], mixture.log_prob(y[4]))
        assert mixture[1].log_prob(y[:, 1]).shape == (6,)

    def test_a_component_without_weight_takes_no_part(self, rng):
        components = components_of(STRUCTURES[2], rng)
        mixture, only = Mixture(components, [0.0, 1.0, 0.0]), components[1]
        y = rng.normal(size=(N, D))
        np.testing.assert_allclose(mixture.log_prob(y), only.log_prob(y))
        np.testing.assert_allclose(mixture.moments().scale_tril, only.scale_tril, atol=1e-12)
        assert not mixture.epistemic_stddev.any()

    def test_many_targets_stay_sparse(self, rng):
        """d = 2000: not one d × d matrix (32 MB), and the right numbers at the first rows."""
        d, structure = 2000, LowRank(3)
        mixture = Mixture(components_of(structure, rng, (K, 2), d), WEIGHTS)
        y = rng.normal(size=(2, d))
        tracemalloc.start()
        log_prob, stddev = mixture.log_prob(y), mixture.stddev
        _ = mixture.aleatoric_stddev, mixture.epistemic_stddev, mixture.mean
        assert mixture.sample(3, seed=0).shape == (3, 2, d)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * d * d / 8
        terms = [
            -0.5 * (y[0] - normal.mean) @ np.linalg.solve(normal.covariance, y[0] - normal.mean)
            - 0.5 * (np.linalg.slogdet(normal.covariance)[1] + d * np.log(2.0 * np.pi))
            for normal in mixture.components[:, 0]
        ]
        assert log_prob[0] == pytest.approx(scipy.special.logsumexp(terms, b=WEIGHTS), rel=1e-9)
        _, aleatoric, epistemic = parts(mixture.components, WEIGHTS, 0)
        np.testing.assert_allclose(stddev[0], np.sqrt(np.diag(aleatoric + epistemic)), rtol=1e-10)

    @pytest.mark.parametrize(
        "index",
        [
            1,
            slice(1, 3),
            [2, 0],
            np.array([True, False, True, False]),
            (2, 1),
            (slice(None), [1, 2]),
            (np.array([0, 3]), np.array([1, 2])),
        ],
        ids=str,
    )
    def test_indexing_acts_on_the_batch_axes(self, index, rng):
        mixture = Mixture(components_of(STRUCTURES[2], rng, (K, 4, 3)), WEIGHTS)
        part = mixture[index]
        np.testing.assert_array_equal(part.mean, mixture.mean[index])
        np.testing.assert_array_equal(part.stddev, mixture.stddev[index])
        np.testing.assert_array_equal(part.weights, WEIGHTS)

    def test_indexing_with_arrays_around_a_slice(self, rng):
        mixture = Mixture(components_of(STRUCTURES[2], rng, (K, 4, 3, 2)), WEIGHTS)
        index = ([0, 1, 3], slice(None), [0, 1, 0])
        np.testing.assert_array_equal(mixture[index].mean, mixture.mean[index])
        np.testing.assert_array_equal(mixture[..., 1].mean, mixture.mean[..., 1, :])

    def test_it_is_a_sequence(self, mixture):
        assert len(mixture) == N
        assert [row.batch_shape for row in mixture] == [()] * N
        assert bool(mixture[0])
        assert mixture.event_size == D
        with pytest.raises(TypeError, match="no length"):
            len(mixture[0])
        with pytest.raises(IndexError, match="no batch axis"):
            mixture[0][0]

    def test_names_and_repr(self, rng):
        names = ["a", "b"]
        components = MultivariateNormal(
            np.zeros((2, 1, 2)), covariance=np.eye(2), target_names=names
        )
        mixture = Mixture(components)
        assert mixture.target_names == ("a", "b")
        assert mixture.moments().target_names == ("a", "b")
        expected = "Mixture(components=2, batch_shape=(1,), event_size=2, targets=['a', 'b'])"
        assert repr(mixture) == expected

    @pytest.mark.parametrize(
        "weights", [[0.5, 0.5], [0.5, 0.6, 0.1], [1.5, -0.5, 0.0], [[0.5, 0.2, 0.3]], 1.0]
    )
    def test_weights_that_are_none(self, weights, rng):
        with pytest.raises(ValueError, match=r"weights=.* 3 numbers ≥ 0 with sum 1"):
            Mixture(components_of(STRUCTURES[2], rng), weights)

    def test_components_that_are_none(self, rng):
        single = MultivariateNormal(np.zeros(2), covariance=np.eye(2))
        with pytest.raises(ValueError, match="first batch axis"):
            Mixture(single)
        with pytest.raises(ValueError, match="at least one component"):
            Mixture(components_of(STRUCTURES[2], rng, (0, N)))
        with pytest.raises(TypeError, match="received a list"):
            Mixture([single, [single]])
        with pytest.raises(ValueError, match="batch shapes"):
            Mixture([single, single.flatten()])

    def test_y_that_does_not_fit(self, mixture):
        with pytest.raises(ValueError, match="y has shape"):
            mixture.log_prob(np.zeros((N, D + 1)))
        with pytest.raises(ValueError, match="NaN"):
            mixture.log_prob(np.full((N, D), np.nan))


# --- deep ensembles -----------------------------------------------------------------------------

NOISE = np.array([[0.3, 0.0], [0.2, 0.1]])  # the factor of the errors' covariance


def table(rng, n):
    x = rng.uniform(-1.0, 1.0, size=(n, 2)).astype("float32")
    y = np.stack([np.sin(2.0 * x[:, 0]), x[:, 0] * x[:, 1]], axis=1)
    return x, (y + rng.normal(size=(n, 2)) @ NOISE.T).astype("float32")


@pytest.fixture
def data(rng):
    """80 rows to train on, two full batches of 32 and one of 16; 40 to validate."""
    x, y = table(rng, 120)
    return (x[:80], y[:80]), (x[80:], y[80:])


def builder_for(y, rate=3e-3, hidden=(), width=8, loss=None, metrics=None, **head_options):
    def builder():
        head = kmvn.layers.MultivariateNormalHead(2, target_names=["a", "b"], **head_options)
        head.adapt(y)
        layers = [keras.layers.Dense(width, "gelu"), *(make() for make in hidden)]
        model = keras.Sequential([keras.Input((2,)), *layers, head])
        model.compile(
            keras.optimizers.Adam(rate),
            loss or kmvn.losses.BalancedNegativeLogLikelihood(),
            metrics=metrics and metrics(),
        )
        return model

    return builder


def weights_of(model):
    return [numpy(v) for v in model.weights]


class TestDeepEnsemble:
    def test_it_trains_predicts_and_comes_back_from_disk(self, data, tmp_path, capsys):
        (x, y), validation = data
        ensemble = DeepEnsemble(builder_for(y), n_members=2, seed=1)
        before = ensemble.predict(validation[0]).log_prob(validation[1]).mean()
        histories = ensemble.fit(x, y, validation, epochs=15, verbose=0, batch_size=16)
        assert capsys.readouterr().out == ""
        assert [len(history["val_loss"]) for history in histories] == [15, 15]
        assert ensemble.trained_vectorized is (BACKEND == "jax")
        predicted = ensemble.predict(validation[0], batch_size=7)
        assert predicted.batch_shape == (40,)
        assert predicted.target_names == ("a", "b")
        assert predicted.log_prob(validation[1]).mean() > before + 0.3
        assert predicted.epistemic_stddev.min() > 0
        for i, member in enumerate(ensemble.members):
            alone = ensemble.head.distribution(member.predict(validation[0], verbose=0))
            np.testing.assert_allclose(predicted.components[i].mean, alone.mean, atol=1e-6)
            np.testing.assert_allclose(
                predicted.components[i].covariance, alone.covariance, atol=1e-6
            )

        ensemble.save(tmp_path / "run" / "ensemble")
        loaded = DeepEnsemble.load(tmp_path / "run" / "ensemble")
        again = loaded.predict(validation[0])
        np.testing.assert_allclose(again.mean, predicted.mean, atol=1e-6)
        np.testing.assert_allclose(again.covariance, predicted.covariance, atol=1e-6)
        index = json.loads((tmp_path / "run" / "ensemble" / "ensemble.json").read_text())
        assert (index["keras"], index["keras_mvn"]) == (keras.__version__, kmvn.__version__)
        assert repr(loaded) == "DeepEnsemble(n_members=2, event_size=2, covariance='cholesky')"
        assert len(loaded.fit(x, y, epochs=1, verbose=0, vectorized=False)) == 2  # still compiled

    @pytest.mark.elsewhere(False)
    def test_members_stop_by_themselves_with_their_best_weights(self, data):
        (x, y), validation = data
        ensemble = DeepEnsemble(builder_for(y, rate=0.2), n_members=3)
        histories = ensemble.fit(x, y, validation, epochs=40, patience=3, verbose=0)
        lengths = [len(history["loss"]) for history in histories]
        assert max(lengths) < 40
        assert len(set(lengths)) > 1
        for member, history in zip(ensemble.members, histories, strict=True):
            assert int(np.argmin(history["val_loss"])) == len(history["loss"]) - 4
            loss = member.evaluate(*validation, verbose=0)
            assert loss == pytest.approx(min(history["val_loss"]), rel=1e-4)

    def test_without_validation_data_or_patience_all_epochs_are_trained(self, data):
        (x, y), validation = data
        ensemble = DeepEnsemble(builder_for(y, rate=0.2), n_members=1)
        options = {"epochs": 12, "verbose": 0, "vectorized": False}
        assert len(ensemble.fit(x, y, patience=1, **options)[0]["loss"]) == 12
        assert len(ensemble.fit(x, y, validation, patience=None, **options)[0]["loss"]) == 12

    @pytest.mark.elsewhere(False)
    def test_seeds(self, data):
        (_, y), _ = data
        first, again, next_seed = (DeepEnsemble(builder_for(y), 3, seed) for seed in (0, 0, 1))
        one, same, other = (
            [weights_of(member)[0] for member in e.members] for e in (first, again, next_seed)
        )
        np.testing.assert_array_equal(one, same)
        for i, kernel in enumerate([*one, *other]):
            for different in [*one, *other][:i]:
                assert np.abs(kernel - different).max() > 0.01
        alone = DeepEnsemble(builder_for(y), n_members=1)
        np.testing.assert_array_equal(weights_of(alone.members[0])[0], one[0])

    @pytest.mark.elsewhere(False)
    def test_the_same_seed_trains_the_same(self, data):
        (x, y), _ = data
        trained = []
        for _ in range(2):
            ensemble = DeepEnsemble(builder_for(y, hidden=[lambda: keras.layers.Dropout(0.3)]), 1)
            ensemble.fit(x, y, epochs=1, verbose=0, vectorized=False)
            trained.append(weights_of(ensemble.members[0])[0])
        np.testing.assert_array_equal(*trained)

    @pytest.mark.elsewhere(False)
    def test_the_users_random_state_is_left_alone(self, data):
        (x, y), _ = data

        def state():
            found = [random.random(), np.random.random()]  # noqa: NPY002
            if BACKEND == "torch":
                import torch

                found.append(float(torch.rand(())))
            return found

        keras.utils.set_random_seed(5)
        expected = state()
        keras.utils.set_random_seed(5)
        DeepEnsemble(builder_for(y), n_members=1).fit(x, y, verbose=0)
        assert state() == expected

    @pytest.mark.elsewhere(False)
    def test_callbacks_are_made_for_each_member(self, data):
        (x, y), _ = data
        made = []

        class Counter(keras.callbacks.Callback):
            epochs = 0

            def on_epoch_end(self, epoch, logs=None):
                self.epochs += 1

        def make():
            made.append(Counter())
            return [made[-1]]

        ensemble = DeepEnsemble(builder_for(y), n_members=2)
        ensemble.fit(x, y, epochs=2, callbacks=make, verbose=0)
        assert [callback.epochs for callback in made] == [2, 2]
        assert ensemble.trained_vectorized is False
        ensemble.fit(x, y, callbacks=Counter, verbose=0)  # a class makes one callback
        with pytest.raises(TypeError, match=r"received a list.*callbacks=lambda: \["):
            ensemble.fit(x, y, callbacks=[Counter()])
        with pytest.raises(TypeError, match="received a Counter"):
            ensemble.fit(x, y, callbacks=Counter())
        with pytest.raises(ValueError, match="vectorized=True: the members cannot"):
            ensemble.fit(x, y, callbacks=make, vectorized=True)

    @pytest.mark.elsewhere(False)
    def test_one_line_for_each_member(self, data, capsys):
        (x, y), validation = data
        ensemble = DeepEnsemble(builder_for(y), n_members=2)
        ensemble.fit(x, y, epochs=1)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert lines[1].startswith("member 2 of 2: 1 epochs, loss ")
        ensemble.fit(x, y, validation, epochs=2)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("member 1 of 2: 2 epochs, best val_loss ")

    def test_a_dataset_and_a_model_of_two_outputs(self, data):
        """Trained in turn, whatever Keras takes; the head's output is named."""
        (x, y), _ = data

        def builder():
            inputs = keras.Input((2,))
            features = keras.layers.Dense(4, "gelu")(inputs)
            head = kmvn.layers.MultivariateNormalHead(2, name="normal")
            outputs = {"normal": head(features), "other": keras.layers.Dense(1)(features)}
            model = keras.Model(inputs, outputs)
            normal = kmvn.losses.BalancedNegativeLogLikelihood()
            model.compile("adam", {"normal": normal, "other": "mse"})
            return model

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                rows = slice(40 * index, 40 * index + 40)
                return x[rows], {"normal": y[rows], "other": y[rows, :1]}

        ensemble = DeepEnsemble(builder, n_members=1)
        ensemble.fit(Batches(), verbose=0)
        assert ensemble.trained_vectorized is False
        assert ensemble.predict(x, output="normal").event_size == 2
        with pytest.raises(ValueError, match=r"several outputs.*DeepEnsemble.predict\(.*output="):
            ensemble.predict(x)

    @pytest.mark.elsewhere(False)
    def test_arguments_of_the_wrong_kind(self, data):
        (x, y), _ = data
        model = builder_for(y)()
        with pytest.raises(TypeError, match="builder must be a function"):
            DeepEnsemble(3)
        with pytest.raises(ValueError, match="n_members"):
            DeepEnsemble(lambda: model, n_members=0)
        with pytest.raises(TypeError, match="must be Keras models; member 0 is a Dense"):
            DeepEnsemble(lambda: keras.layers.Dense(1))
        ensemble = DeepEnsemble(lambda: model, n_members=1)
        with pytest.raises(ValueError, match="patience"):
            ensemble.fit(x, y, patience=-1)

    @pytest.mark.elsewhere(False)
    def test_what_builders_get_wrong(self, data):
        (_, y), _ = data
        options = {"n_members": 2}
        model = builder_for(y)()
        with pytest.raises(ValueError, match="share the variable"):
            DeepEnsemble(lambda: model, **options)
        head = kmvn.layers.MultivariateNormalHead(2)

        def with_head(head, compiled=True, optimizer="adam"):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), head])
            if compiled:
                model.compile(optimizer, "mse")
            return model

        with pytest.raises(ValueError, match=r"share the variable.*inside builder"):
            DeepEnsemble(lambda: with_head(head), **options)
        adam = keras.optimizers.Adam()
        fresh = kmvn.layers.MultivariateNormalHead
        with pytest.raises(ValueError, match="share one optimizer"):
            DeepEnsemble(lambda: with_head(fresh(2), optimizer=adam), **options)
        with pytest.raises(ValueError, match="member 0 is not: call model.compile"):
            DeepEnsemble(lambda: with_head(fresh(2), compiled=False), **options)
        with pytest.raises(ValueError, match="no MultivariateNormalHead"):
            DeepEnsemble(lambda: with_head(keras.layers.Dense(5)), **options)
        names = iter(["cholesky", "precision_cholesky"])
        with pytest.raises(ValueError, match=r"heads differ: Cholesky.*Precision.*member 1"):
            DeepEnsemble(lambda: with_head(fresh(2, next(names))), **options)

    @pytest.mark.elsewhere(False)
    def test_from_members(self, data):
        """Models that exist already: as they are, and trained as if a builder had made them."""
        (x, y), (x_val, y_val) = data
        made = DeepEnsemble(builder_for(y), n_members=2, seed=5)
        members = [keras.models.clone_model(member) for member in made.members]
        for member, original in zip(members, made.members, strict=True):
            member.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
            member.set_weights(original.get_weights())
            original.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
        ensemble = DeepEnsemble.from_members(members, seed=5)
        np.testing.assert_array_equal(ensemble.predict(x_val).mean, made.predict(x_val).mean)
        ensemble.fit(x, y, (x_val, y_val), epochs=2, verbose=0)
        made.fit(x, y, (x_val, y_val), epochs=2, verbose=0)
        close = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(ensemble.predict(x_val).mean, made.predict(x_val).mean, **close)
        with pytest.raises(ValueError, match=r"len\(members\)=0 must be the number of models"):
            DeepEnsemble.from_members([])

    @pytest.mark.skipif(BACKEND == "jax", reason="JAX has it")
    def test_one_pass_elsewhere_than_on_jax(self, data):
        (x, y), _ = data
        ensemble = DeepEnsemble(builder_for(y), n_members=1)
        with pytest.raises(ValueError, match=f"the backend is '{BACKEND}', not 'jax'"):
            ensemble.fit(x, y, vectorized=True)
        assert ensemble.trained_vectorized is None

    @pytest.mark.once
    @pytest.mark.slow
    @pytest.mark.elsewhere(False)
    def test_members_disagree_far_from_the_data(self, rng):
        x, y = table(rng, 600)
        train, validation = (x[:400], y[:400]), (x[400:], y[400:])
        ensemble = DeepEnsemble(builder_for(train[1], rate=2e-2, width=32), n_members=3)
        ensemble.fit(*train, validation, epochs=60, batch_size=100, verbose=0)
        inside = ensemble.predict(rng.uniform(-0.8, 0.8, size=(200, 2)))
        outside = ensemble.predict(
            rng.uniform(3.0, 4.0, size=(200, 2)) * rng.choice([-1, 1], (200, 2))
        )
        ratio = np.median(outside.epistemic_stddev, 0) / np.median(inside.epistemic_stddev, 0)
        assert ratio.min() > 4.0
        truth = np.sqrt((NOISE**2).sum(axis=1))
        found = np.median(inside.aleatoric_stddev, axis=0)
        np.testing.assert_allclose(found, truth, rtol=0.25)
        assert (np.median(inside.epistemic_stddev, 0) < 0.5 * truth).all()


class TestSaving:
    @pytest.fixture
    def ensemble(self, data):
        ensemble = DeepEnsemble(builder_for(data[0][1]), n_members=2)
        for member in ensemble.members:  # Keras warns when it loads an optimizer never used
            member.optimizer.build(member.trainable_variables)
        return ensemble

    @pytest.mark.elsewhere(False)
    def test_an_earlier_save_is_replaced(self, ensemble, tmp_path):
        ensemble.save(tmp_path / "e")
        (tmp_path / "e" / "member_7.keras").write_bytes(b"of an ensemble of eight")
        ensemble.save(tmp_path / "e")
        names = sorted(path.name for path in (tmp_path / "e").iterdir())
        assert names == ["ensemble.json", "member_0.keras", "member_1.keras"]
        assert [path.name for path in tmp_path.iterdir()] == ["e"]

    @pytest.mark.elsewhere(False)
    def test_what_is_not_a_save_is_not_replaced(self, ensemble, tmp_path):
        (tmp_path / "thesis.txt").write_text("three years of work")
        with pytest.raises(FileExistsError, match="not an earlier save"):
            ensemble.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
        (tmp_path / "empty").mkdir()
        ensemble.save(tmp_path / "empty")

    @pytest.mark.parametrize("there_was_one", [True, False])
    @pytest.mark.elsewhere(False)
    def test_an_interrupted_save_leaves_the_earlier_one(
        self, ensemble, tmp_path, monkeypatch, there_was_one
    ):
        x = np.zeros((3, 2), "float32")
        if there_was_one:
            ensemble.save(tmp_path / "e")
        expected = ensemble.predict(x).mean
        second = ensemble.members[1]
        second.set_weights([w + 1.0 for w in second.get_weights()])
        monkeypatch.setattr(type(second), "save", _fails_at("member_1.keras", type(second).save))
        with pytest.raises(OSError, match="disk full"):
            ensemble.save(tmp_path / "e")
        assert [path.name for path in tmp_path.iterdir()] == ["e"] * there_was_one
        if there_was_one:
            got = DeepEnsemble.load(tmp_path / "e").predict(x).mean
            np.testing.assert_allclose(got, expected, atol=1e-6)

    @pytest.mark.elsewhere(False)
    def test_folders_that_cannot_be_loaded(self, ensemble, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"contains no ensemble.json"):
            DeepEnsemble.load(tmp_path)
        ensemble.save(tmp_path / "e")
        index = tmp_path / "e" / "ensemble.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "format": 2}))
        with pytest.raises(ValueError, match="format 2 .* Upgrade keras-mvn"):
            DeepEnsemble.load(tmp_path / "e")


def _fails_at(name, save):
    def failing(self, path, *args, **kwargs):
        if path.name == name:
            path.write_bytes(b"half a f")
            raise OSError("disk full")
        return save(self, path, *args, **kwargs)

    return failing


# --- one pass against in turn -------------------------------------------------------------------

METRICS = [
    lambda: kmvn.metrics.Coverage(0.9),
    lambda: kmvn.metrics.RootMeanSquaredError(),
]

NETWORKS = {
    "shrinkage": {},  # the head's add_loss; no layer has a random state
    "random and moving": {
        "hidden": [lambda: keras.layers.Dropout(0.3), keras.layers.BatchNormalization],
        "metrics": lambda: [make() for make in METRICS],
    },
    "weight decay, gaps, low rank": {
        "hidden": [lambda: keras.layers.Dense(4, "silu", kernel_regularizer="l2")],
        "covariance": LowRank(1),
        "loss": kmvn.losses.NegativeLogLikelihood(LowRank(1), missing="marginalize"),
    },
}


def both_ways(builder, data, **options):
    """The same ensemble trained in one pass and by Keras, member by member."""
    trained = []
    for vectorized in (True, False):
        ensemble = DeepEnsemble(builder, n_members=3, seed=4)
        histories = ensemble.fit(*data[0], data[1], vectorized=vectorized, verbose=0, **options)
        assert ensemble.trained_vectorized is vectorized
        trained.append((ensemble, histories))
    return trained


def state_of(model):
    return [
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.optimizer.variables,
    ]


def assert_same(one, other, tolerance=2e-4):
    """Variables, those of optimizers and generators too, and histories."""
    options = {"rtol": tolerance, "atol": tolerance}
    for a, b in zip(one[0].members, other[0].members, strict=True):
        for v, w in zip(state_of(a), state_of(b), strict=True):
            np.testing.assert_allclose(
                numpy(v).astype(float), numpy(w).astype(float), err_msg=v.path, **options
            )
    for a, b in zip(one[1], other[1], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], err_msg=name, **options)


@on_jax
@pytest.mark.slow
class TestOnePass:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_it_is_keras_training(self, name, data):
        """Weights, optimizer, losses and metrics after shuffled batches, the last one smaller."""
        (x, y), validation = data
        options = {"epochs": 4, "patience": None}
        if "gaps" in name:
            y = np.where(np.random.default_rng(1).random(y.shape) < 0.2, np.nan, y)
            weight = np.random.default_rng(2).uniform(0.5, 2.0, len(y)).astype("float32")
            options["sample_weight"] = weight
            options["validation_batch_size"] = 15
        one, other = both_ways(builder_for(y, **NETWORKS[name]), ((x, y), validation), **options)
        assert_same(one, other)
        assert not np.allclose(*(weights_of(member)[0] for member in one[0].members[:2]), atol=1e-2)

    def test_a_second_call_trains_on(self, data):
        """Also of members whose learning rates, which are variables, differ."""
        rates = itertools.cycle([1e-3, 1e-2])

        def builder():
            return builder_for(data[0][1], next(rates))()

        one, other = (DeepEnsemble(builder, n_members=2) for _ in range(2))
        orders = []
        for _ in range(2):
            histories = [
                ensemble.fit(*data[0], epochs=1, verbose=0, vectorized=vectorized)
                for ensemble, vectorized in ((one, True), (other, False))
            ]
            assert_same((one, histories[0]), (other, histories[1]))
            orders.append([one._member_seed(i, one._fits) for i in range(2)])
        assert len({seed for seeds in orders for seed in seeds}) == 4

    def test_early_stopping_is_keras(self, data):
        one, other = both_ways(builder_for(data[0][1], rate=0.03), data, epochs=60, patience=4)
        assert len({len(history["loss"]) for history in one[1]}) > 1
        assert_same(one, other, tolerance=5e-3)

    def test_a_training_step_of_ones_own(self, data):
        """As the Keras guide writes them for JAX: its state goes in and comes out."""

        class Halving(keras.Model):
            def train_step(self, state, batch):
                x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
                return super().train_step(state, (x, 0.5 * y))

        def builder():
            inputs = keras.Input((2,))
            head = kmvn.layers.MultivariateNormalHead(2)
            model = Halving(inputs, head(keras.layers.Dense(4, "gelu")(inputs)))
            model.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
            return model

        assert_same(*both_ways(builder, data, epochs=2, patience=None, shuffle=False))

    def test_what_falls_back(self, data, capsys):
        (x, y), validation = data

        def reason(builder, *arguments, **options):
            ensemble = DeepEnsemble(builder, n_members=2)
            before = [weights_of(member) for member in ensemble.members]
            with pytest.raises(ValueError, match="in one pass, because") as error:
                ensemble.fit(*(arguments or (x, y)), vectorized=True, verbose=0, **options)
            for member, weights in zip(ensemble.members, before, strict=True):
                for a, b in zip(weights_of(member), weights, strict=True):
                    np.testing.assert_array_equal(a, b)
            return str(error.value)

        plain = builder_for(y)
        assert "fit was given class_weight" in reason(plain, class_weight={0: 1.0})
        assert "hold a float, not numeric arrays" in reason(plain, x.tolist(), y)
        batches = [(x, y)]
        assert "hold a generator" in reason(plain, (batch for batch in batches))
        assert "validation_data is not a tuple" in reason(plain, validation_data=iter(batches))
        assert "differ in their number of rows" in reason(plain, x[:10], y)
        rates = iter([0.1, 0.2])
        drops = [lambda: keras.layers.Dropout(next(rates))]
        assert "are not alike" in reason(builder_for(y, hidden=drops))
        widths = iter([4, 5])
        assert "are not alike" in reason(lambda: builder_for(y, width=next(widths))())
        rows = iter([80, 40])  # other rows, other strength of shrinkage="auto"
        assert "numbers outside its variables" in reason(lambda: builder_for(y[: next(rows)])())
        shifts = iter([0.0, 1.0])

        def normalized():
            layer = keras.layers.Normalization()
            layer.adapt(x + next(shifts))
            model = keras.Sequential([keras.Input((2,)), layer, *plain().layers])
            model.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
            return model

        assert "numbers outside its variables" in reason(normalized)
        powers = iter([2, 4])

        def closing_over_a_number():
            power = next(powers)

            def loss(y_true, y_pred):
                return keras.ops.mean((y_pred[:, :2] - y_true) ** power, axis=-1)

            model = plain()
            model.compile("adam", loss)
            return model

        assert "are not alike" in reason(closing_over_a_number)

        def eager():
            model = plain()
            model.compile("adam", "mse", run_eagerly=True)
            return model

        assert "without jit_compile" in reason(eager)

        class Unmappable(keras.Model):
            def train_step(self, state, batch):
                logs, state = super().train_step(state, batch)
                return {"loss": float(logs["loss"])}, state

        def unmappable():
            model = Unmappable(*_ends(plain()))
            model.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
            return model

        assert "cannot trace the training step" in reason(unmappable)
        widths = iter([4, 5])
        ensemble = DeepEnsemble(lambda: builder_for(y, width=next(widths))(), n_members=2)
        ensemble.fit(x, y, validation)
        assert ensemble.trained_vectorized is False
        assert capsys.readouterr().out.startswith(
            "training members in turn, because the training step"
        )


def _ends(model):
    return model.inputs, model.outputs[0]
