"""y_pred with a column behind those of the structure: ν, which the kernels read around."""

import numpy as np
import pytest

from differentiation import numpy, value_and_gradients
from keras_mvn import covariances, kernels, losses
from keras_mvn.kernels import _native

STRUCTURES = [
    covariances.Cholesky(),
    covariances.PrecisionCholesky(),
    covariances.LowRank(rank=1),
    covariances.LowRank(rank=3),
]

pytestmark = pytest.mark.skipif(
    _native.library().handle is None, reason="the native library was not built here"
)


def batch(structure, d, rng, rows=37):
    width = 2 * d + structure.shape_size(d)
    y_pred = 0.3 * rng.normal(size=(rows, width + 1))
    y_pred[:, d : 2 * d] = np.exp(y_pred[:, d : 2 * d])
    y_pred[:, -1] = rng.uniform(2.5, 20.0, size=rows)
    return y_pred, rng.normal(size=(rows, d))


@pytest.mark.parametrize("kind", [losses.StudentT, losses.BalancedStudentT])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("d", [1, 2, 5, 17])
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: f"{s.name}{getattr(s, 'rank', '')}")
@pytest.mark.elsewhere(gaps=[True], d=[5], kind=[losses.BalancedStudentT])
def test_value_and_gradient_are_those_of_the_slices(structure, d, gaps, kind, rng):
    if getattr(structure, "rank", 0) >= d:
        pytest.skip("a rank below d is needed")
    y_pred, y = batch(structure, d, rng)
    if gaps:
        y[rng.uniform(size=y.shape) < 0.3] = np.nan
    missing = "marginalize" if gaps else "propagate"

    def found(fused):
        loss = kind("learned", structure, missing=missing, fused=fused)
        with kernels.recording() as ran:
            value, (gradient,) = value_and_gradients(
                lambda y_pred: loss(y.astype("float32"), y_pred), y_pred
            )
        assert {one.path for one in ran if one.op == "elliptical"} == {
            "fast" if fused else "reference"
        }
        return numpy(value), gradient

    value, gradient = found(fused=True)
    expected, true = found(fused=False)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, true, rtol=2e-4, atol=2e-5 * np.abs(true).max())
    assert np.median(np.abs(gradient[:, -1])) > 0.0
