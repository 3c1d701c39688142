"""The functions of `keras_mvn.ops`, on tensors and inside a graph."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops as kops

from keras_mvn import layouts
from keras_mvn._core.checks import whole
from keras_mvn._core.dtypes import at_least_float32
from keras_mvn._core.targets import checked_missing
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, Covariance, CovarianceLike
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import MixtureParameters, Parameters, Reader, StudentTParameters, _tag
from keras_mvn.layouts._y_true import Targets, as_tensor, read_targets
from keras_mvn.ops import _kl_divergence
from keras_mvn.ops._laws import law_of, negative_log_density

__all__ = [
    "covariance",
    "entropy",
    "kl_divergence",
    "log_prob",
    "mahalanobis",
    "mean",
    "region_level",
    "sample",
    "scale_tril",
    "stddev",
    "variance",
]

# --- density --------------------------------------------------------------------------------------


def log_prob(
    y: Tensor,
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
    missing: str = "propagate",
) -> Tensor:
    """Return the log-density log p(y), in nats: (...).

    log N(y; μ, Σ) = −½ ‖z‖² − ½ log det Σ − ½ d log 2π, with z = Σ^(−½)(y − μ). With
    `layout="student_t"`, it is that of the Student's t, as in `keras_mvn.MultivariateStudentT`.

    Args:
        y: (..., d), values in the units of y; (...) is accepted for one target. It may have more
            leading axes than y_pred, (n, ..., d), like the result of `sample`: every draw is then
            compared with the same predictions. Axes of length 1 are not broadcast.
        y_pred: (..., 2 d + k) in the packed layout, the output of the model.
        covariance: the structure that wrote y_pred, or its name; use the head's.
        from_raw: as in `keras_mvn.losses.NegativeLogLikelihood`.
        layout: "packed", "student_t", "stacked" or "mean_log_variance"; "student_t" reads the
            Student's t itself, and "mixture_<n>" what a `MultivariateMixtureHead` writes.
        missing: "marginalize" treats NaN in y as missing: the result is the log-density of the
            observed targets, and 0 for a row with nothing observed. With "propagate", NaN makes
            the row NaN.

    Raises:
        ValueError: a name is unknown, the shapes of y and y_pred do not match, or a head wrote a
            different structure.

    >>> import keras
    >>> y_pred = keras.ops.convert_to_tensor([[0.0, 0.0, 2.0, 3.0, 0.5]])
    >>> round(float(log_prob(keras.ops.convert_to_tensor([[2.0, 3.0]]), y_pred)[0]), 4)
    -4.2546

    """
    reader = Reader(covariance, from_raw, layout)
    targets, parameters = _read_both(y, y_pred, reader, missing, "ops.log_prob", mixtures=True)
    return -negative_log_density(reader.covariance, targets, parameters)


def region_level(
    y: Tensor,
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
    missing: str = "propagate",
) -> Tensor:
    """Return the probability of the smallest ellipsoid that contains y: (...).

    P(Q ≤ q) for the squared distance q = (y − μ)ᵀ Σ⁻¹ (y − μ), where Q is a χ²_d variable; with
    `layout="student_t"`, Q/d is an F variable with d and ν degrees of freedom. It is uniform on
    (0, 1) if the predictions are right. With "marginalize", d is the number of observed targets,
    and the level of a row with nothing observed is 0.

    It is an integral over 32 nodes per row, with an error below 2e-6 in float32 for up to 200
    targets, and below 1e-9 in float64. Its gradient is exact to the same degree, and 0 where the
    level or its distance from 1 is below 1e-11. Arguments and errors are those of `log_prob`.

    >>> import keras
    >>> y_pred = keras.ops.convert_to_tensor([[0.0, 0.0, 2.0, 3.0, 0.5]])
    >>> y = keras.ops.convert_to_tensor([[2.0, 3.0]])
    >>> round(float(region_level(y, y_pred)[0]), 4)  # 1 − exp(−‖z‖²/2), with ‖z‖² = 1.25
    0.4647

    """
    reader = Reader(covariance, from_raw, layout)
    targets, parameters = _read_both(y, y_pred, reader, missing, "ops.region_level")
    squared = elliptical(reader.covariance, targets, parameters).squared_mahalanobis
    return law_of(parameters).level(squared, targets)


def mahalanobis(
    y: Tensor,
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
    missing: str = "propagate",
) -> Tensor:
    """Return the Mahalanobis distance √((y − μ)ᵀ Σ⁻¹ (y − μ)) = ‖z‖: (...).

    It is in standard deviations; with `layout="student_t"`, Σ is the scale matrix, as in
    `MultivariateStudentT.mahalanobis`. At distance 0, where the distance has a kink, its gradient
    is 0. With "marginalize", it is the distance of the observed targets. Arguments and errors are
    those of `log_prob`.

    >>> import keras
    >>> y_pred = keras.ops.convert_to_tensor([[0.0, 0.0, 2.0, 3.0, 0.5]])
    >>> round(float(mahalanobis(keras.ops.convert_to_tensor([[2.0, 3.0]]), y_pred)[0]), 4)
    1.118

    """
    reader = Reader(covariance, from_raw, layout)
    targets, parameters = _read_both(y, y_pred, reader, missing, "ops.mahalanobis")
    z, _ = reader.covariance.standardize(
        targets.values - parameters.mean,
        parameters.scale,
        parameters.shape_params,
        targets.observed,
    )
    return _norm(z)


def entropy(
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the entropy, ½ log det(2πe Σ) for a normal, in nats: (...).

    For a Student's t, with the digamma function ψ, it is ½ log det Σ + ½ d log(νπ)
    + log Γ(½ν) − log Γ(½(ν + d)) + ½ (ν + d) (ψ(½(ν + d)) − ψ(½ν)).

    Args:
        y_pred: (..., 2 d + k) in the packed layout, the output of the model.
        covariance: the structure that wrote y_pred, or its name; use the head's.
        from_raw: as in `keras_mvn.losses.NegativeLogLikelihood`.
        layout: as in `log_prob`.

    Raises:
        ValueError: a name is unknown, the structure cannot read the width of y_pred, a head wrote
            a different structure, or y_pred is symbolic (outside any layer's `call`).

    >>> import keras
    >>> y_pred = keras.ops.convert_to_tensor([[7.0, 1.0]])  # N(7, 1): ½ log 2πe
    >>> round(float(entropy(y_pred)[0]), 4)
    1.4189

    """
    structure, parameters = _read_as_stored(y_pred, covariance, from_raw, layout, "ops.entropy")
    location, scale, shape_params = parameters
    _, half_log_det = structure.standardize(kops.zeros_like(location), scale, shape_params)
    return law_of(parameters).entropy(half_log_det, location.shape[-1])


def kl_divergence(
    p_pred: Tensor,
    q_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    other_covariance: CovarianceLike | None = None,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the divergence KL(p‖q) = E_p[log p(y) − log q(y)] ≥ 0, in nats: (...).

    For distillation, or for a penalty on the distance from a prior or an earlier model. It is the
    exact value, ½ [tr(Σ_q⁻¹ Σ_p) + (μ_p − μ_q)ᵀ Σ_q⁻¹ (μ_p − μ_q) − d + log det Σ_q − log det Σ_p],
    computed from the factors of both: nothing is inverted and no determinant is formed. Where p is
    nearly q, rounding leaves an error of about ±1e-7 d in float32; the gradient is accurate even
    there.

    In general, memory per row is O(d²) and time is O(d³). Diagonal and low-rank structures on both
    sides take O(d r_q (r_p + r_q)) and form nothing of size d × d; a diagonal q uses only the
    variances of p. A low-rank q with a full p takes O(d² r_q) memory.

    Args:
        p_pred: (..., 2 d + k) in the packed layout, as in `entropy`.
        q_pred: the same for q, with the same number of targets. The one with fewer batch axes
            (none, for one prior) is repeated over the leading axes of the other; axes of length 1
            are not broadcast.
        covariance: the structure that wrote p_pred, or its name.
        other_covariance: the structure that wrote q_pred, or its name; None if it is the same.
        from_raw: for both, as in `keras_mvn.losses.NegativeLogLikelihood`.
        layout: for both, as in `keras_mvn.losses.NegativeLogLikelihood`, except "student_t".

    Raises:
        ValueError: layout is "student_t": there is no closed form for a Student's t; as for
            `entropy`; or p_pred and q_pred have different numbers of targets, or
            batch axes that do not fit.

    Source: Kullback & Leibler, "On information and sufficiency", Ann. Math. Stat. 22 (1951);
    Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, eq. A.23.

    >>> import keras
    >>> p = keras.ops.convert_to_tensor([[0.0, 1.0]])  # N(0, 1)
    >>> q = keras.ops.convert_to_tensor([[1.0, 2.0]])  # N(1, 4): log 2 + (1 + 1)/8 − ½
    >>> round(float(kl_divergence(p, q)[0]), 4)
    0.4431

    """
    who = "ops.kl_divergence"
    if layouts.get(layout).has_degrees_of_freedom:
        raise ValueError(
            f"{who}: between Student's t distributions, which layout={layout!r} describes, the "
            "divergence has no closed form. After `predict`, MultivariateStudentT.kl_divergence "
            "estimates it with an error; in a graph, average ops.log_prob over ops.sample."
        )
    other = covariance if other_covariance is None else other_covariance
    p, p_at = _read(p_pred, covariance, from_raw, layout, who)
    try:
        q, q_at = _read(q_pred, other, from_raw, layout, who)
    except ValueError as error:
        raise ValueError(f"q_pred, read by other_covariance: {error}") from None
    p_at, q_at = _aligned(p_at, q_at, who)
    return _kl_divergence.kl_divergence(p, p_at, q, q_at)


# --- draws ----------------------------------------------------------------------------------------


def sample(
    y_pred: Tensor,
    n: int | None = None,
    seed: Any = None,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return random draws μ + Σ^½ ε, ε standard normal: (n, ..., d), or (..., d) for n=None.

    With `layout="student_t"`, draws from the Student's t: μ + Σ^½ ε/√w, where w is a gamma variable
    with shape and rate ν/2.

    Reparameterized: the draws are a differentiable function of y_pred, so the gradient of a mean
    over draws is an unbiased estimate of the gradient of the expectation; the gradient
    by ν comes from the implicit derivative of w. Each draw takes as much memory as y_pred.

    Args:
        y_pred: as in `entropy`.
        n: int, number of draws from each distribution.
        seed: as in `keras.random.normal`: an integer gives the same draws in every call, a
            `keras.random.SeedGenerator` gives new ones each time, and None uses Keras' global
            generator, which compiled JAX functions do not support.
        covariance: as in `entropy`.
        from_raw: as in `entropy`.
        layout: as in `entropy`.

    Raises:
        ValueError: as for `entropy`; or n is neither None nor an integer ≥ 0.

    Source: Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014; for w, Figurnov et al.,
    "Implicit reparameterization gradients", NeurIPS 2018.

    >>> import keras
    >>> y_pred = keras.ops.convert_to_tensor([[1.0, 2.0, 2.0, 3.0, 0.5]])
    >>> draws = sample(y_pred, n=1000, seed=0)
    >>> tuple(draws.shape)
    (1000, 1, 2)

    """
    draws = None if n is None else whole(n, "n", "None or a number of draws", 0)
    structure, parameters = _read_as_stored(y_pred, covariance, from_raw, layout, "ops.sample")
    errors = law_of(parameters).draw(structure, parameters, 1 if draws is None else draws, seed)
    return parameters.mean + (errors[0] if draws is None else errors)


# --- moments --------------------------------------------------------------------------------------


def mean(
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the mean μ, in the units of y: (..., d).

    Arguments and errors are those of `entropy`.

    >>> import keras
    >>> [float(m) for m in mean(keras.ops.convert_to_tensor([1.0, 2.0, 2.0, 3.0, 0.5]))]
    [1.0, 2.0]

    """
    reader = Reader(covariance, from_raw, layout)
    return reader.mean(_checked(as_tensor(y_pred), reader, "ops.mean"))


def covariance(
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the covariance, in squared units of y: (..., d, d).

    It is Σ; for a Student's t with the scale matrix Σ, it is ν/(ν − 2) Σ. Arguments and errors are
    those of `entropy`.

    >>> import keras
    >>> sigma = covariance(keras.ops.convert_to_tensor([1.0, 2.0, 2.0, 3.0, 0.5]))
    >>> [[float(entry) for entry in row] for row in sigma]
    [[4.0, 3.0], [3.0, 11.25]]

    """
    structure, (_, scale, shape_params) = _read(
        y_pred, covariance, from_raw, layout, "ops.covariance"
    )
    return structure.covariance(scale, shape_params)


def variance(
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the variances, the diagonal of the covariance: (..., d).

    Arguments and errors are those of `entropy`.

    >>> import keras
    >>> [float(v) for v in variance(keras.ops.convert_to_tensor([1.0, 2.0, 2.0, 3.0, 0.5]))]
    [4.0, 11.25]

    """
    structure, (_, scale, shape_params) = _read(
        y_pred, covariance, from_raw, layout, "ops.variance"
    )
    return structure.variance(scale, shape_params)


def stddev(
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the standard deviations, in the units of y: (..., d).

    Arguments and errors are those of `entropy`.

    >>> import keras
    >>> s = stddev(keras.ops.convert_to_tensor([1.0, 2.0, 2.0, 3.0, 0.5]))
    >>> [round(float(v), 4) for v in s]
    [2.0, 3.3541]

    """
    structure, (_, scale, shape_params) = _read(y_pred, covariance, from_raw, layout, "ops.stddev")
    # The variance is that of R, because the square of a small scale would underflow.
    return scale * kops.sqrt(structure.variance(kops.ones_like(scale), shape_params))


def scale_tril(
    y_pred: Tensor,
    covariance: CovarianceLike = DEFAULT,
    from_raw: bool = False,
    layout: str = "packed",
) -> Tensor:
    """Return the lower Cholesky factor L of Σ = L Lᵀ: (..., d, d).

    For a Student's t, Σ is the scale matrix, as in `MultivariateStudentT.scale_tril`. Arguments and
    errors are those of `entropy`.

    >>> import keras
    >>> factor = scale_tril(keras.ops.convert_to_tensor([1.0, 2.0, 2.0, 3.0, 0.5]))
    >>> [[float(entry) for entry in row] for row in factor]
    [[2.0, 0.0], [1.5, 3.0]]

    """
    structure, (_, scale, shape_params) = _read_as_stored(
        y_pred, covariance, from_raw, layout, "ops.scale_tril"
    )
    return structure.scale_tril(scale, shape_params)


# --- reading --------------------------------------------------------------------------------------


def _read(
    y_pred: Tensor, covariance: CovarianceLike, from_raw: bool, layout: str, owner: str
) -> tuple[Covariance, Parameters]:
    """Return the structure, and the normals' parameters, for a t those of its covariance."""
    reader = Reader(covariance, from_raw, layout)
    return reader.covariance, reader.decode(_checked(as_tensor(y_pred), reader, owner))


def _read_as_stored(
    y_pred: Tensor, covariance: CovarianceLike, from_raw: bool, layout: str, owner: str
) -> tuple[Covariance, Parameters]:
    """Return the structure, and the parameters, for a t those of its scale matrix with ν."""
    reader = Reader(covariance, from_raw, layout)
    return reader.covariance, reader.decode_elliptical(_checked(as_tensor(y_pred), reader, owner))


def _checked(y_pred: Tensor, reader: Reader, owner: str) -> Tensor:
    """Return y_pred in at least float32; a head with another structure raises an error."""
    if isinstance(y_pred, keras.KerasTensor):
        raise ValueError(
            f"{owner}: y_pred is a symbolic KerasTensor of shape {tuple(y_pred.shape)}. Call this "
            "function inside a layer's `call`, a loss or a training step, where tensors have "
            "values."
        )
    _tag.check(y_pred, reader.covariance, owner, reader.layout.name, reader.from_raw)
    return kops.cast(y_pred, at_least_float32(y_pred.dtype))


def _read_both(
    y: Tensor,
    y_pred: Tensor,
    reader: Reader,
    missing: str,
    owner: str,
    mixtures: bool = False,
) -> tuple[Targets, Parameters]:
    """Return targets and parameters with equal batch axes."""
    missing = checked_missing(missing, "propagate")
    y, y_pred = as_tensor(y), as_tensor(y_pred)
    decode = reader.decode_any if mixtures else reader.decode_elliptical
    parameters = decode(_checked(y_pred, reader, owner))
    if _continues(y, parameters.mean):
        parameters = _repeat(parameters, y)
    else:
        reader.check(y, y_pred, owner)
    return read_targets(y, parameters.mean, missing), parameters


def _aligned(p: Parameters, q: Parameters, owner: str) -> tuple[Parameters, Parameters]:
    """Return both in one dtype, the one with fewer batch axes repeated."""
    # Not `keras.backend.result_type`, which treats float64 as float32.
    types = [keras.backend.standardize_dtype(x.mean.dtype) for x in (p, q)]
    dtype = "float64" if "float64" in types else "float32"
    p, q = (Parameters(*(kops.cast(x, dtype) for x in parameters)) for parameters in (p, q))
    if _continues(p.mean, q.mean):
        return p, _repeat(q, p.mean)
    if _continues(q.mean, p.mean):
        return _repeat(p, q.mean), q
    if _ends_with(p.mean, q.mean):
        return p, q
    raise ValueError(
        f"{owner}: p_pred describes means of shape {tuple(p.mean.shape)} and q_pred of shape "
        f"{tuple(q.mean.shape)}. They must agree, except that one may lack leading axes."
    )


def _continues(longer: Tensor, x: Tensor) -> bool:
    """Return whether `longer` has the shape of x with additional leading axes."""
    return len(longer.shape) > len(x.shape) and _ends_with(longer, x)


def _ends_with(longer: Tensor, x: Tensor) -> bool:
    last = tuple(longer.shape)[len(longer.shape) - len(x.shape) :]
    return len(last) == len(x.shape) and all(
        a is None or b is None or a == b for a, b in zip(last, x.shape, strict=True)
    )


def _repeat(parameters: Parameters, like: Tensor) -> Parameters:
    """Repeat the parameters for every leading index of `like` (n, ..., d)."""
    batch = kops.cast(kops.zeros_like(like[..., :1]), parameters.mean.dtype)
    if parameters.logits is not None:
        components = tuple(_repeat(one, like) for one in parameters.components)
        return MixtureParameters.of(parameters.mean + batch, components, parameters.logits + batch)
    repeated, nu = Parameters(*(x + batch for x in parameters)), parameters.degrees_of_freedom
    return repeated if nu is None else StudentTParameters.of(repeated, nu + batch[..., 0])


def _norm(z: Tensor) -> Tensor:
    """Return ‖z‖ (...), with gradient 0 at z = 0; NaN stays NaN."""
    squares = kops.sum(z * z, axis=-1)
    at_zero = squares == 0
    root = kops.sqrt(kops.where(at_zero, kops.ones_like(squares), squares))
    return kops.where(at_zero, kops.zeros_like(squares), root)
