"""Inputs limited to the range that was seen."""

import keras
import numpy as np
import pytest

from differentiation import numpy, tensor, value_and_gradients
from keras_mvn.layers import SoftClip


def limit():
    return SoftClip([-1.0, 0.0], [1.0, 10.0], [0.5, 2.0])


def test_inputs_within_the_range_stay_and_others_end_within_the_margin():
    x = np.array([[0.3, 4.0], [1.2, -1.0], [1e30, -1e30], [-1e12, 1e12]])
    expected = np.array(
        [[0.3, 4.0], [1.0 + 0.5 * np.tanh(0.4), -2.0 * np.tanh(0.5)], [1.5, -2.0], [-1.5, 12.0]]
    )
    np.testing.assert_allclose(numpy(limit()(tensor(x))), expected, rtol=1e-6)


def test_the_slope_is_1_at_the_limits_and_goes_to_0():
    def total(x):
        return keras.ops.sum(limit()(x))

    x = np.array([[0.999, 5.0], [1.001, 10.5], [50.0, 1e9]])
    _, (slope,) = value_and_gradients(total, x)
    expected = [[1.0, 1.0], [1.0, 1.0 / np.cosh(0.25) ** 2], [0.0, 0.0]]
    np.testing.assert_allclose(slope, expected, atol=1e-3)


def test_of_rows_leaves_out_what_is_far_from_all_others(rng):
    x = rng.uniform(size=(200, 2))
    x[5, 1] = 1e6
    found = SoftClip.of(x)
    others = np.delete(x[:, 1], 5)
    np.testing.assert_allclose(found.upper, [x[:, 0].max(), others.max()])
    np.testing.assert_allclose(found.margin, [x[:, 0].std(), others.std()])
    constant = SoftClip.of(np.ones((50, 1)))
    assert abs(numpy(constant(tensor([[7.0]])))[0, 0] - 1.0) < 1e-5


def test_files_keep_it(tmp_path):
    model = keras.Sequential([keras.Input((2,)), limit()])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = np.array([[5.0, -5.0]], "float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    np.testing.assert_allclose(loaded.layers[0].outside(x), [[2.0, 0.5]])


@pytest.mark.parametrize(
    "limits", [([0.0], [1.0, 2.0], [1.0]), ([1.0], [0.0], [1.0]), ([0.0], [1.0], [0.0])]
)
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(ValueError, match="SoftClip"):
        SoftClip(*limits)
