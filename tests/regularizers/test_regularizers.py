"""Penalties: every one on every structure against dense float64 formulas of Σ, and what they do."""

import json

import keras
import numpy as np
import pytest
import scipy.stats
import sklearn.covariance

import keras_mvn as kmvn
import oracle
import structures
from differentiation import EPSILON, numpy, precision, tensor, value_and_gradients
from keras_mvn import covariances, losses, regularizers
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import (
    LKJ,
    ConditionNumber,
    CovarianceL1,
    CovarianceL2,
    HalfLogDet,
    InverseWishart,
    Shrinkage,
)
from structures import PLAIN

D = 3
FACTORS = ["diagonal", "cholesky", "precision_cholesky"]  # the others share their wire format
BATCHES = [(2, 3)]
TARGET = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])


# --- dense formulas of one Σ ---------------------------------------------------------------------
def standardized(matrix):
    root = np.sqrt(np.diag(matrix))
    return matrix / np.outer(root, root)


def off(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def log_det(matrix):
    return np.log(np.linalg.det(matrix))


def divergence(target, sigma):
    """KL(N(0, target) ‖ N(0, sigma))."""
    trace = np.trace(np.linalg.inv(sigma) @ target)
    return 0.5 * (trace - len(sigma) + log_det(sigma) - log_det(target))


def log_mean_inflation(sigma):
    eigenvalues = np.linalg.eigvalsh(standardized(sigma))
    return np.log(eigenvalues.mean()) + np.log((1 / eigenvalues).mean())


inverse = np.linalg.inv

CASES = {
    "l1": (CovarianceL1(0.3), lambda s: 0.3 * abs(off(standardized(s))).sum()),
    "l1 with diagonal": (
        CovarianceL1(0.3, off_diagonal=False),
        lambda s: 0.3 * abs(standardized(s)).sum(),
    ),
    "l1 covariance": (CovarianceL1(0.3, on="covariance"), lambda s: 0.3 * abs(off(s)).sum()),
    "l1 covariance with diagonal": (
        CovarianceL1(0.3, on="covariance", off_diagonal=False),
        lambda s: 0.3 * abs(s).sum(),
    ),
    "l1 precision": (
        CovarianceL1(0.3, on="precision"),
        lambda s: 0.3 * abs(off(inverse(s))).sum(),
    ),
    "l1 partial correlation": (
        CovarianceL1(0.3, on="partial_correlation"),
        lambda s: 0.3 * abs(off(standardized(inverse(s)))).sum(),
    ),
    "l2": (CovarianceL2(0.3), lambda s: 0.3 * (off(standardized(s)) ** 2).sum()),
    "l2 covariance with diagonal": (
        CovarianceL2(0.3, on="covariance", off_diagonal=False),
        lambda s: 0.3 * (s**2).sum(),
    ),
    "l2 precision": (
        CovarianceL2(0.3, on="precision"),
        lambda s: 0.3 * (off(inverse(s)) ** 2).sum(),
    ),
    "l2 partial correlation": (
        CovarianceL2(0.3, on="partial_correlation"),
        lambda s: 0.3 * (off(standardized(inverse(s))) ** 2).sum(),
    ),
    "inverse-wishart": (
        InverseWishart(5.5, 4 * TARGET, rows=10),
        # Up to the constant that makes it 0 at the mode; SciPy's constant cancels.
        lambda s: (
            (
                scipy.stats.invwishart(5.5, 4 * TARGET).logpdf(4 * TARGET / 9.5)
                - scipy.stats.invwishart(5.5, 4 * TARGET).logpdf(s)
            )
            / 10
        ),
    ),
    "lkj": (LKJ(3.0, rows=4), lambda s: -2.0 * log_det(standardized(s)) / 4),
    "shrinkage": (Shrinkage(0.7), lambda s: 0.7 * divergence(np.diag(np.diag(s)), s)),
    "shrinkage to a matrix": (
        Shrinkage(0.7, target=TARGET),
        lambda s: 0.7 * divergence(TARGET, s),
    ),
    "condition number": (ConditionNumber(0.7), lambda s: 0.7 * log_mean_inflation(s)),
    "condition number above": (
        ConditionNumber(0.7, threshold=3.0),
        lambda s: 0.7 * max(0.0, log_mean_inflation(s) - np.log(16 / 12)),
    ),
    "log volume": (HalfLogDet(0.7), lambda s: 0.35 * log_det(s)),
    "log volume in units": (
        HalfLogDet(-0.7, target_scale=[1.0, 2.0, 5.0]),
        lambda s: -0.7 * (0.5 * log_det(s) - np.log(10.0)),
    ),
}
FREE_OF_UNITS = [
    "l1",
    "l1 partial correlation",
    "l2",
    "l2 partial correlation",
    "lkj",
    "shrinkage",
    "condition number",
    "condition number above",
]

every_case = pytest.mark.parametrize("case", CASES)
every_structure = pytest.mark.parametrize("name", PLAIN)


def draw(name, batch, rng, size=0.7):
    """Scale and shape parameters as a network of moderate outputs gives them, float64."""
    structure = covariances.get(name)
    return structure.constrain(size * rng.normal(size=(*batch, structure.raw_size(D))), D)


def of_rows(formula, name, scale, shape_params):
    """The dense formula for every row of a batch."""
    values = np.empty(scale.shape[:-1])
    wire = covariances.get(name).wire.name
    for index in np.ndindex(values.shape):
        values[index] = formula(oracle.covariance(wire, scale[index], shape_params[index]))
    return values


def penalty_of(penalty, name, scale, shape_params):
    return penalty(covariances.get(name), Parameters(scale, scale, shape_params))


def total_of(penalty, name, scale, shape_params):
    """The sum over rows; joined to its arguments, as PyTorch differentiates no constant."""
    values = penalty_of(penalty, name, scale, shape_params)
    return keras.ops.sum(values) + 0.0 * keras.ops.sum(scale)


@every_case
class TestFormula:
    @every_structure
    @pytest.mark.parametrize("batch", BATCHES, ids=str)
    def test_value_is_the_dense_one(self, name, case, batch, dtype, rng):
        penalty, formula = CASES[case]
        scale, shape_params = draw(name, batch, rng)
        expected = of_rows(formula, name, scale, shape_params)
        assert expected.any() or name in ("isotropic", "diagonal") or "above" in case
        got = numpy(penalty_of(penalty, name, tensor(scale, dtype), tensor(shape_params, dtype)))
        assert got.dtype == dtype
        assert got.shape == batch
        bound = 500 * EPSILON[dtype]
        np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)
        on_numpy = penalty_of(penalty, name, scale, shape_params)
        assert np.shape(on_numpy) == batch
        np.testing.assert_allclose(on_numpy, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", FACTORS)
    @pytest.mark.elsewhere(name=["cholesky"])
    def test_gradient_is_the_dense_formulas(self, name, case, rng):
        penalty, formula = CASES[case]
        arrays = draw(name, (2,), rng)
        with precision("float64"):
            _, gradients = value_and_gradients(
                lambda *p: total_of(penalty, name, *p), *arrays, dtype="float64"
            )

        def total(which, moved):
            moved_arrays = [*arrays]
            moved_arrays[which] = moved
            return of_rows(formula, name, *moved_arrays).sum()

        for which, gradient in enumerate(gradients):
            expected = oracle.central_difference(
                lambda moved, which=which: total(which, moved), arrays[which], step=1e-3
            )
            size = max(1.0, np.abs(expected).max(initial=0.0))
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8 * size)

    @every_structure
    @pytest.mark.elsewhere(name=["cholesky"], case=["l1", "l1 precision"])
    def test_extreme_outputs_of_a_network(self, name, case):
        """What float32 gives is what float64 gives, and its gradient is finite."""
        penalty, _ = CASES[case]
        structure = covariances.get(name)
        raw = np.full((3, structure.raw_size(D)), [[-8.0], [0.0], [8.0]])
        value, (gradient,) = value_and_gradients(
            lambda raw: total_of(penalty, name, *structure.constrain(raw, D)), raw
        )
        rows = penalty_of(penalty, name, *structure.constrain(raw, D))
        assert value == pytest.approx(rows.sum(), rel=2e-3, abs=1e-3 * np.abs(rows).max())
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("case", FREE_OF_UNITS)
@pytest.mark.parametrize("unit", [1e-30, 1e30])
@pytest.mark.elsewhere(name=["cholesky"], unit=[1e30])
def test_units_play_no_part(name, case, unit, rng):
    penalty, formula = CASES[case]
    scale, shape_params = draw(name, (4,), rng)
    expected = of_rows(formula, name, scale, shape_params)
    units = np.array([1.0, unit, 1.0]) * unit**0.1
    moved = tensor(scale * units), tensor(shape_params)
    got = numpy(penalty_of(penalty, name, *moved))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-15, 1e15])
def test_a_fixed_target_in_other_units_gives_the_same(unit, rng):
    scale, shape_params = draw("cholesky", (4,), rng)
    units = np.array([1.0, unit, 1.0])
    target = TARGET * units[:, None] * units
    for penalty, formula in (
        (Shrinkage(0.7, target), CASES["shrinkage to a matrix"][1]),
        (InverseWishart(5.5, 4 * target, rows=10), CASES["inverse-wishart"][1]),
        (HalfLogDet(-0.7, target_scale=[1.0, 2.0 * unit, 5.0]), CASES["log volume in units"][1]),
    ):
        expected = of_rows(formula, "cholesky", scale, shape_params)
        got = numpy(penalty_of(penalty, "cholesky", tensor(scale * units), tensor(shape_params)))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


class TestWhatTheMinimumIs:
    """Residuals under one Σ for all rows, and a penalty: the best Σ is known in closed form."""

    rows = 20
    strength = 0.5

    def stationary(self, penalty, sigma):
        """The gradient by scale and shape, at Σ, of the mean loss."""
        structure = covariances.Cholesky()
        scale, shape_params = structure.from_covariance(sigma)

        def loss(scale, shape_params):
            shape = (self.rows, 1)
            y_pred = keras.ops.concatenate(
                [keras.ops.zeros_like(scale), scale, shape_params], axis=-1
            )
            nll = losses.NegativeLogLikelihood(regularizer=penalty)
            return nll(tensor(self.residuals, "float64"), keras.ops.tile(y_pred[None], shape))

        with precision("float64"):
            _, gradients = value_and_gradients(loss, scale, shape_params, dtype="float64")
        return np.concatenate(gradients)

    @pytest.fixture(autouse=True)
    def _data(self, rng):
        self.residuals = rng.normal(size=(self.rows, D)) @ np.diag([1.0, 2.0, 0.5])
        self.scatter = self.residuals.T @ self.residuals

    @pytest.mark.parametrize("which", ["shrinkage", "inverse-wishart", "from_mode", "log volume"])
    def test_it_is_where_theory_says(self, which):
        s, n, c = self.scatter, self.rows, self.strength
        penalty, sigma = {
            # c pseudo-observations of covariance T for every row
            "shrinkage": (Shrinkage(c, TARGET), (s / n + c * TARGET) / (1 + c)),
            # the posterior's mode: (S + Ψ) / (n + ν + d + 1)
            "inverse-wishart": (InverseWishart(6, 5 * TARGET, n), (s + 5 * TARGET) / (n + 10)),
            "from_mode": (
                InverseWishart.from_mode(TARGET, 10, n),
                (s + 10 * TARGET) / (n + 10),
            ),
            "log volume": (HalfLogDet(c), s / n / (1 + c)),
        }[which]
        np.testing.assert_allclose(self.stationary(penalty, sigma), 0.0, atol=1e-12)
        assert np.abs(self.stationary(penalty, 1.01 * sigma)).max() > 1e-3


class TestConditionNumber:
    def correlations(self, rng, d):
        for _ in range(200):
            factor = rng.normal(size=(d, rng.integers(1, 2 * d)))
            yield standardized(factor @ factor.T + 10 ** rng.uniform(-4, 0) * np.eye(d))

    def value(self, c, threshold=1.0):
        structure = covariances.Cholesky()
        parameters = Parameters(np.zeros(len(c)), *structure.from_covariance(c))
        return float(ConditionNumber(1.0, threshold)(structure, parameters))

    @pytest.mark.parametrize("d", [2, 3, 6])
    def test_the_documented_bounds_hold(self, d, rng):
        for c in self.correlations(rng, d):
            h, kappa = self.value(c), np.linalg.cond(c)
            assert np.exp(h) <= (kappa + 1) ** 2 / (4 * kappa) * (1 + 1e-9)
            root = np.sqrt(kappa)
            assert root + 1 / root <= (2 + d * (np.exp(h / 2) - 1)) * (1 + 1e-9)
            assert self.value(c, threshold=1.0001 * kappa) == 0.0
            if d == 2:
                assert self.value(c, threshold=max(1.0, 0.99 * kappa)) > 0.0

    def test_equal_eigenvalues_have_a_gradient(self):
        # C = I, and an equicorrelated C, d − 1 of whose eigenvalues are equal.
        equal = 0.4 + 0.6 * np.eye(4)
        for c in (np.eye(4), equal):
            structure = covariances.Cholesky()
            scale, shape_params = structure.from_covariance(c)
            with precision("float64"):
                _, gradients = value_and_gradients(
                    lambda *p: ConditionNumber(1.0)(structure, Parameters(p[0], *p)),  # noqa: B023
                    scale, shape_params, dtype="float64",
                )  # fmt: skip
            expected = oracle.central_difference(
                lambda n: log_mean_inflation(oracle.covariance("cholesky", scale, n)),  # noqa: B023
                shape_params,
                step=1e-3,
            )
            np.testing.assert_allclose(gradients[1], expected, rtol=0, atol=1e-8)


class TestLedoitWolf:
    def targets(self, rng, n=12, d=4):
        return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5.0

    @pytest.mark.parametrize("n", [3, 12, 500])
    @pytest.mark.parametrize("d", [1, 4])
    def test_scikit_learns_on_standardized_targets(self, n, d, rng):
        y = self.targets(rng, n, d) * np.logspace(-3, 3, d)
        sd = y.std(axis=0)
        expected = sklearn.covariance.ledoit_wolf((y - y.mean(axis=0)) / sd)[0] * np.outer(sd, sd)
        np.testing.assert_allclose(
            Shrinkage.from_targets(y, 0.1).target, expected, rtol=1e-10, atol=1e-12
        )

    def test_rows_with_gaps_are_left_out(self, rng):
        y = self.targets(rng)
        gaps = np.concatenate([y, y[:3] + 100.0])
        gaps[-3:, [0, 2, 3]] = np.diag(np.full(3, np.nan)) + gaps[-3:, [0, 2, 3]]
        np.testing.assert_array_equal(
            Shrinkage.from_targets(gaps, 0.1).target, Shrinkage.from_targets(y, 0.1).target
        )

    def test_tensors_are_read(self, rng):
        y = self.targets(rng).astype("float32")
        np.testing.assert_array_equal(
            Shrinkage.from_targets(tensor(y), 0.1).target, Shrinkage.from_targets(y, 0.1).target
        )

    def test_collinear_targets_have_a_target(self, rng):
        y = self.targets(rng)
        copied = np.concatenate([y, y[:, :1]], axis=1)
        assert np.linalg.eigvalsh(Shrinkage.from_targets(copied, 1.0).target).min() > 0

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda y: y[:, 0], r"shape \(12,\)"),
            (lambda y: y * [1, np.inf, 1, 1], "infinite"),
            (lambda y: y * [0, 1, 1, 1] + 0.1, r"targets \[0\].*constant"),
            (
                lambda y: np.where(np.arange(12)[:, None] > 0, np.nan, y),
                "1 complete rows out of 12",
            ),
        ],
        ids=["rank", "infinite", "constant", "gaps"],
    )
    def test_bad_targets(self, spoil, message, rng):
        with pytest.raises(ValueError, match=message):
            Shrinkage.from_targets(spoil(self.targets(rng)), 0.1)


def packed(name, rows, rng):
    scale, shape_params = draw(name, (rows,), rng)
    return np.concatenate([rng.normal(size=(rows, D)), scale, shape_params], axis=-1)


@every_case
class TestUse:
    def test_every_argument_survives_saving(self, case, rng):
        penalty, _ = CASES[case]
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(penalty)))
        assert config["registered_name"].startswith("keras_mvn.regularizers>")
        again = regularizers.get(config)
        assert type(again) is type(penalty)
        assert again.get_config() == penalty.get_config()
        arguments = draw("cholesky", (4,), rng)
        np.testing.assert_array_equal(
            penalty_of(again, "cholesky", *arguments), penalty_of(penalty, "cholesky", *arguments)
        )

    def test_a_loss_adds_it_per_row(self, case, rng):
        penalty, formula = CASES[case]
        y, y_pred = rng.normal(size=(4, D)), packed("cholesky", 4, rng)
        plain = losses.NegativeLogLikelihood(reduction=None)
        penalized = losses.NegativeLogLikelihood(regularizer=penalty, reduction=None)
        added = numpy(penalized(y, tensor(y_pred))) - numpy(plain(y, tensor(y_pred)))
        expected = of_rows(formula, "cholesky", y_pred[:, D : 2 * D], y_pred[:, 2 * D :])
        np.testing.assert_allclose(added, expected, rtol=1e-4, atol=1e-5)
        weights = np.array([0.0, 1.0, 2.0, 0.0])
        total = losses.NegativeLogLikelihood(regularizer=penalty, reduction="sum")
        assert float(total(y, tensor(y_pred), weights)) == pytest.approx(
            numpy(penalized(y, tensor(y_pred))) @ weights, rel=1e-5
        )


ONE_OF_EACH = {type(penalty).__name__: case for case, (penalty, _) in CASES.items()}


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
@pytest.mark.elsewhere(case=["l1 partial correlation", "shrinkage to a matrix", "inverse-wishart"])
def test_it_trains(case, rng):
    penalty, _ = CASES[case]
    x, y = rng.normal(size=(32, 2)), rng.normal(size=(32, D))
    head = kmvn.layers.MultivariateNormalHead(D)
    head.adapt(y)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "gelu"), head])
    model.compile("adam", loss=losses.NegativeLogLikelihood(regularizer=penalty))
    before = [numpy(w) for w in model.trainable_weights]
    history = model.fit(x, y, batch_size=16, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert np.isfinite(numpy(new)).all()
        assert (numpy(new) != old).any()


class TestArguments:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: CovarianceL1(-1.0), "strength=-1.0 must be a number ≥ 0"),
            (lambda: CovarianceL1(float("nan")), "strength=nan"),
            (lambda: CovarianceL2("0.1"), "strength='0.1'"),
            (lambda: CovarianceL1(1.0, on="inverse"), "'partial_correlation', 'precision'"),
            (lambda: CovarianceL2(1.0, on="inverse"), "'correlation', 'covariance'"),
            (lambda: LKJ(0.9, rows=1), "concentration=0.9 must be a number ≥ 1"),
            (lambda: LKJ(2.0, rows=0), "rows=0 must be the number of training rows"),
            (lambda: LKJ(2.0, rows=1.5), "rows=1.5"),
            (lambda: InverseWishart(2.0, np.eye(3), 10), "above d − 1 = 2"),
            (lambda: InverseWishart(9, np.eye(3), 0), "rows=0"),
            (lambda: InverseWishart(9, np.ones((2, 3)), 1), r"scale_matrix has shape \(2, 3\)"),
            (lambda: InverseWishart(9, np.ones((2, 2)), 1), "scale_matrix must be positive"),
            (lambda: InverseWishart.from_mode(np.eye(3), 6, 10), "above 2 d = 6"),
            (lambda: Shrinkage(-0.1), "strength=-0.1"),
            (lambda: Shrinkage(0.1, "identity"), "target='identity' is not known"),
            (lambda: Shrinkage(0.1, [[1.0, 2.0], [0.0, 1.0]]), "target must be symmetric"),
            (lambda: Shrinkage(0.1, [[1.0, 0.0], [0.0, 0.0]]), "target must be positive"),
            (lambda: Shrinkage(0.1, [[1.0, np.nan], [np.nan, 1.0]]), "target contains NaN"),
            (lambda: ConditionNumber(1.0, threshold=0.5), "threshold=0.5 must be a number ≥ 1"),
            (lambda: ConditionNumber(-1.0), "strength=-1.0"),
            (lambda: HalfLogDet(-1.0), "nothing would hold it back"),
            (lambda: HalfLogDet(-1.5), "strength=-1.5"),
            (lambda: HalfLogDet(1.0, target_scale=[1.0, 0.0]), "positive numbers"),
        ],
    )  # fmt: skip
    def test_bad_ones_are_named(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        "penalty",
        [
            Shrinkage(0.1, np.eye(2)),
            InverseWishart(9, np.eye(2), 10),
            HalfLogDet(0.1, target_scale=[1.0, 2.0]),
        ],
        ids=lambda p: type(p).__name__,
    )
    def test_another_number_of_targets(self, penalty, rng):
        loss = losses.NegativeLogLikelihood(regularizer=penalty)
        with pytest.raises(ValueError, match="is for 2 targets, but the prediction has 3"):
            loss(np.zeros((4, D)), packed("cholesky", 4, rng))

    def test_a_loss_refuses_what_is_no_penalty(self):
        with pytest.raises(ValueError, match="keras_mvn.regularizers.CovarianceL1"):
            losses.NegativeLogLikelihood(regularizer=keras.regularizers.L1(0.1))

    def test_every_penalty_is_tested(self):
        tested = {type(penalty).__name__ for penalty, _ in CASES.values()}
        assert tested == set(regularizers.__all__) - {"CovarianceRegularizer", "get"}


@pytest.mark.parametrize("structure", structures.STRUCTURES, ids=structures.named)
@pytest.mark.parametrize(
    "penalty",
    [
        CovarianceL1(0.3),
        CovarianceL1(0.3, on="partial_correlation"),
        CovarianceL2(0.3, on="precision"),
        LKJ(3.0, rows=4),
        InverseWishart(6.0, np.eye(4), rows=10),
        Shrinkage(0.7),
        ConditionNumber(0.7),
        HalfLogDet(0.7),
    ],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
def test_a_penalty_sees_sigma_whatever_the_structure(penalty, structure, rng):
    scale, shape_params = structure.constrain(0.5 * rng.normal(size=(3, structure.raw_size(4))), 4)
    mean = np.zeros((3, 4))
    sigma = structure.covariance(scale, shape_params)
    cholesky = covariances.Cholesky()
    expected = penalty(cholesky, Parameters(mean, *cholesky.from_covariance(sigma)))
    got = penalty(structure, Parameters(mean, scale, shape_params))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    on_backend = penalty(structure, Parameters(tensor(mean), tensor(scale), tensor(shape_params)))
    np.testing.assert_allclose(numpy(on_backend), expected, rtol=1e-3, atol=1e-4)
