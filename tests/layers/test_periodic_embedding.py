"""Embeddings of inputs by waves."""

import keras
import numpy as np
import pytest
import scipy.stats

from differentiation import numpy, tensor
from keras_mvn.layers import MultivariateNormalHead, PeriodicEmbedding


def test_formula(rng):
    layer = PeriodicEmbedding(units=4, frequencies=5)
    x = rng.normal(size=(7, 3))
    found = numpy(layer(tensor(x)))
    rates, kernel, bias = (np.array(keras.ops.convert_to_numpy(w)) for w in layer.weights)
    expected = [x]
    for j in range(3):
        angle = 2 * np.pi * x[:, j, None] * rates[j]
        z = np.hstack([np.cos(angle), np.sin(angle)]) @ kernel[j] + bias[j]
        expected.append(z * scipy.stats.norm.cdf(z))
    np.testing.assert_allclose(found, np.hstack(expected), atol=2e-5)
    assert layer.compute_output_shape((None, 3)) == (None, 15)


def test_chosen_inputs_alone(rng):
    x = rng.normal(size=(7, 4))
    layer = PeriodicEmbedding(units=3, frequencies=5, inputs=[2, 0])
    found = numpy(layer(tensor(x)))
    assert found.shape == layer.compute_output_shape(x.shape) == (7, 10)
    inner = PeriodicEmbedding(units=3, frequencies=5)
    inner.build((None, 2))
    for own, given in zip(inner.weights, layer.weights, strict=True):
        own.assign(given)
    np.testing.assert_allclose(found[:, 4:], numpy(inner(tensor(x[:, [2, 0]])))[:, 2:], atol=1e-6)
    np.testing.assert_allclose(numpy(PeriodicEmbedding(inputs=[])(tensor(x))), x, rtol=1e-6)
    with pytest.raises(ValueError, match="different positions below 4"):
        PeriodicEmbedding(inputs=[1, 4])(tensor(x))


def test_frequencies_begin_with_the_scale():
    layer = PeriodicEmbedding(frequencies=400, scale=0.2)
    layer.build((None, 30))
    rates = keras.ops.convert_to_numpy(layer.rates)
    assert rates.std() == pytest.approx(0.2, rel=0.03)


def test_files_keep_it(tmp_path, rng):
    inputs = keras.Input((3,))
    head = MultivariateNormalHead(2)
    model = keras.Model(inputs, head(PeriodicEmbedding(4, 5, 0.7)(inputs)))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = rng.normal(size=(6, 3)).astype("float32")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert loaded.layers[1].get_config()["scale"] == 0.7


@pytest.mark.once
@pytest.mark.parametrize("options", [{"units": 0}, {"frequencies": 2.5}, {"scale": 0.0}])
def test_sizes_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PeriodicEmbedding(**options)


@pytest.mark.once
def test_inputs_are_rows_of_numbers():
    with pytest.raises(ValueError, match="rows, features"):
        PeriodicEmbedding()(np.zeros((2, 3, 4), "float32"))
