"""An independent implementation to check against: dense, float64 or mpmath, by definition.

It imports nothing of keras_mvn. Packed parameters are read with explicit loops, covariances are
formed, inverted and differentiated by the complex step, which has no truncation error.
"""

import itertools

import mpmath
import numpy as np
import scipy.linalg

LOG_2PI = np.log(2.0 * np.pi)


def strict_lower(packed, d):
    """The strictly lower triangular matrix of one packed vector, row by row."""
    packed = np.asarray(packed)
    matrix = np.zeros((d, d), packed.dtype)
    position = 0
    for i in range(d):
        for j in range(i):
            matrix[i, j] = packed[position]
            position += 1
    assert position == len(packed)
    return matrix


def correlation_factor(x):
    """The Cholesky factor of the correlation matrix with these Fisher z's (strict lower)."""
    partial = np.tanh(x)
    d = len(x)
    factor = np.zeros((d, d), partial.dtype)
    for i in range(d):
        left = 1.0
        for j in range(i):
            factor[i, j] = partial[i, j] * left
            left = left * np.sqrt(1.0 - partial[i, j] ** 2)
        factor[i, i] = left
    return factor


def band(packed, d, bandwidth):
    """The strictly lower matrix with these diagonals, the one next to the main diagonal first."""
    matrix = np.zeros((d, d), np.asarray(packed).dtype)
    position = 0
    for lag in range(1, min(bandwidth, d - 1) + 1):
        for i in range(lag, d):
            matrix[i, i - lag] = packed[position]
            position += 1
    assert position == len(packed)
    return matrix


def shape_size(structure, d):
    """k of a structure, described as `shape_matrix` takes it."""
    name, *rest = (structure,) if isinstance(structure, str) else structure
    if name in ("isotropic", "diagonal"):
        return 0
    if name == "low_rank":
        return d * rest[0]
    if name == "banded":
        return sum(1 for i in range(d) for j in range(i) if i - j <= rest[0])
    if name == "block_diagonal":
        return sum(shape_size(block, len(indices)) for indices, block in rest[0])
    if name == "kronecker":
        (p, q), rows, columns = rest
        return shape_size(rows, p) + shape_size(columns, q)
    return d * (d - 1) // 2


def shape_matrix(structure, d, packed):
    """R of one row, by definition; `structure` is a name or a tuple (name, arguments …)."""
    name, *rest = (structure,) if isinstance(structure, str) else structure
    packed = np.asarray(packed)
    identity = np.eye(d)
    if name in ("isotropic", "diagonal"):
        return identity
    if name == "block_diagonal":
        r = np.zeros((d, d), packed.dtype)
        start = 0
        for indices, block in rest[0]:
            end = start + shape_size(block, len(indices))
            r[np.ix_(indices, indices)] = shape_matrix(block, len(indices), packed[start:end])
            start = end
        assert start == len(packed)
        return r
    if name == "kronecker":
        (p, q), rows, columns = rest
        k = shape_size(rows, p)
        return np.kron(shape_matrix(rows, p, packed[:k]), shape_matrix(columns, q, packed[k:]))
    if name == "low_rank":
        v = packed.reshape(d, rest[0])
        return identity + v @ v.T
    if name == "correlation":
        factor = correlation_factor(strict_lower(packed, d))
    elif name == "banded":
        factor = np.linalg.inv(identity + band(packed, d, rest[0]))
    elif name == "precision_cholesky":
        factor = np.linalg.inv(identity + strict_lower(packed, d))
    else:
        assert name == "cholesky"
        factor = identity + strict_lower(packed, d)
    return factor @ factor.T


def covariance(structure, scale, shape_params):
    """Σ of one row, from the definition of the structure."""
    s = np.diag(np.asarray(scale))
    return s @ shape_matrix(structure, len(s), shape_params) @ s


def negative_log_likelihood(structure, y, mean, scale, shape_params, observed=None):
    """−log N(y; μ, Σ) of one row by inverse and determinant; analytic, so complex steps work.

    With `observed`, indices of targets, that of their marginal distribution.
    """
    sigma = covariance(structure, scale, shape_params)
    r = np.asarray(y) - mean
    if observed is not None:
        sigma, r = sigma[np.ix_(observed, observed)], r[observed]
    log_det = np.log(np.linalg.det(sigma))
    return 0.5 * (r @ np.linalg.inv(sigma) @ r + log_det + len(r) * LOG_2PI)


def complex_step_gradient(function, x, step=1e-30):
    """The gradient of an analytic real function, to rounding error."""
    x = np.asarray(x, float)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * step
        gradient[index] = np.imag(function(moved)) / step
    return gradient


def central_difference(function, x, step=1e-5):
    """The gradient by central differences, fourth order."""
    x = np.asarray(x, float)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        values = []
        for multiple in (-2, -1, 1, 2):
            moved = x.copy()
            moved[index] += multiple * step
            values.append(function(moved))
        gradient[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return gradient


LOG_EIGENVALUE_LIMIT = 0.5 * np.log(1e6)


def spectral_covariance(packed, d, limit=LOG_EIGENVALUE_LIMIT):
    """exp(g(H)), g(x) = x/√(1 + x²/b²), of the symmetric H with this packed lower triangle."""
    h = np.zeros((d, d))
    entries = ((i, j) for i in range(d) for j in range(i + 1))
    for (i, j), value in zip(entries, packed, strict=True):
        h[i, j] = h[j, i] = value
    eigenvalues, vectors = scipy.linalg.eigh(h)
    g = eigenvalues / np.sqrt(1.0 + (eigenvalues / limit) ** 2)
    return vectors @ np.diag(np.exp(g)) @ vectors.T


def mp_triangular_nll(name, y, mean, scale, shape_params, digits=60):
    """NLL and ∂NLL/∂μ of one row in mpmath, as floats: for ill-conditioned Σ."""
    with mpmath.workdps(digits):
        d = len(scale)
        a = mpmath.eye(d)
        for (i, j), value in zip(
            ((i, j) for i, j in itertools.product(range(d), repeat=2) if j < i),
            shape_params,
            strict=True,
        ):
            a[i, j] = mpmath.mpf(float(value))
        s = [mpmath.mpf(float(v)) for v in scale]
        u = mpmath.matrix(
            [(mpmath.mpf(float(y[i])) - mpmath.mpf(float(mean[i]))) / s[i] for i in range(d)]
        )
        if name == "precision_cholesky":
            z = a * u
            v = a.T * z
        else:
            z = mpmath.lu_solve(a, u)
            v = mpmath.lu_solve(a.T, z)
        value = sum(x * x for x in z) / 2 + sum(mpmath.log(x) for x in s)
        value += mpmath.mpf(d) * mpmath.log(2 * mpmath.pi) / 2
        return float(value), np.array([float(-v[i] / s[i]) for i in range(d)])
