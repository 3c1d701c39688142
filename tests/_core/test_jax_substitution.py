"""Triangular systems on JAX: values, derivatives of both orders, and no call that may wait."""

import keras
import numpy as np
import pytest

from keras_mvn._core.jax_substitution import solve_lower

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's own"),
    pytest.mark.parametrize("transposed", [False, True]),
    pytest.mark.parametrize("d", [3, 11]),
]


@pytest.fixture
def system(d, rng):
    factor = rng.normal(size=(5, d, d)) / 2 + 2 * np.eye(d)
    return factor.astype("float32"), rng.normal(size=(5, d, 2)).astype("float32")


def by_lapack(factor, b, *, transposed):
    import jax

    solve = jax.lax.linalg.triangular_solve
    return solve(factor, b, left_side=True, lower=True, transpose_a=transposed)


def derivatives(solve, system, transposed):
    """First derivatives in both arguments, and the second derivative along one direction."""
    import jax

    def slope(factor, b):
        value = lambda *s: (solve(*s, transposed=transposed) ** 3).sum()  # noqa: E731
        return jax.grad(value, argnums=(0, 1))(factor, b)

    direction = tuple(np.cos(np.arange(x.size)).reshape(x.shape).astype("float32") for x in system)
    return jax.jvp(slope, system, direction)


def test_derivatives_are_those_of_lapack(system, transposed):
    found = derivatives(solve_lower, system, transposed)
    expected = derivatives(by_lapack, system, transposed)
    for got, wanted in zip(found, expected, strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_matrices_and_sides_broadcast(system, transposed):
    factor, b = system
    got = solve_lower(factor[0], b, transposed=transposed)
    np.testing.assert_allclose(
        got[3], by_lapack(factor[0], b[3], transposed=transposed), rtol=1e-4, atol=1e-5
    )


def test_what_lies_above_the_diagonal_is_not_read(system, transposed, d):
    factor, b = system
    spoiled = np.where(np.triu(np.ones((d, d)), 1) > 0, np.nan, factor)
    np.testing.assert_array_equal(
        solve_lower(spoiled, b, transposed=transposed),
        solve_lower(factor, b, transposed=transposed),
    )


def test_nothing_waits_for_threads(system, transposed):
    """jaxlib's batched LAPACK calls stop for good where they take all threads of XLA."""
    import jax

    def compiled(solve):
        slope = jax.grad(lambda *s: solve(*s, transposed=transposed).sum(), argnums=(0, 1))
        return jax.jit(slope).lower(*system).compile().as_text()

    assert "trsm" in compiled(by_lapack)  # how the compiler spells what must not be there
    assert "trsm" not in compiled(solve_lower)
