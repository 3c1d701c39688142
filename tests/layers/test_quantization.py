"""Quantized models: the head keeps its precision, the other layers are quantized as ever."""

import keras
import numpy as np
import pytest

from differentiation import numpy
from keras_mvn import losses
from keras_mvn.layers import MultivariateNormalHead

D = 3


@pytest.fixture
def model(rng):
    x = rng.normal(size=(64, 8)).astype("float32")
    head = MultivariateNormalHead(D)
    head.adapt(x[:, :D] + 0.3 * rng.normal(size=(64, D)))
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "gelu"), head]), x


def quantized(model, mode):
    with pytest.warns(UserWarning, match="is not quantized|InputLayer") as caught:
        model.quantize(mode)
    told = [str(warning.message) for warning in caught if "MultivariateNormalHead" in str(warning)]
    for name, message in zip(("covariance", "mean"), sorted(told), strict=True):
        assert f"Layer '{name}' of a MultivariateNormalHead is not quantized" in message


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.elsewhere(mode=["int8"])
@pytest.mark.slow
def test_a_quantized_model_is_saved_and_loaded(mode, model, tmp_path):
    model, x = model
    trunk, head = model.layers
    kernels = [numpy(layer.kernel) for layer in (head.mean_dense, head.covariance_dense)]
    before = model.predict(x, verbose=0)
    features = numpy(trunk(x))
    quantized(model, mode)
    assert trunk.quantization_mode == mode
    for layer, kernel in zip((head.mean_dense, head.covariance_dense), kernels, strict=True):
        assert layer.quantization_mode is None
        np.testing.assert_array_equal(numpy(layer.kernel), kernel)
    after = model.predict(x, verbose=0)
    assert np.abs(after - before).max() > 0.0
    # What changed is the trunk's rounding alone: the head is the same function as before.
    rounded = numpy(trunk(x))
    assert np.abs(rounded - features).max() > 0.0
    raw = rounded @ kernels[0] + numpy(head.mean_dense.bias)
    mean = numpy(head.origin_mean) + numpy(head.origin_stddev) * raw
    np.testing.assert_allclose(after[:, :D], mean, rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[0].quantization_mode == mode
    np.testing.assert_array_equal(again.predict(x, verbose=0), after)


@pytest.mark.parametrize("dtype", ["int8_from_float32", "int8_from_mixed_bfloat16"])
def test_a_quantized_policy_does_not_reach_the_head(dtype, model):
    model, x = model
    keras.config.set_dtype_policy(dtype)
    try:
        head = MultivariateNormalHead(D)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (head.dtype_policy.name, head.compute_dtype) == ("float32", "float32")
    assert head.mean_dense.quantization_mode is None
    np.testing.assert_allclose(numpy(head(x)), numpy(head(x, training=True)), rtol=1e-5, atol=1e-5)


def test_a_head_trains_on_in_a_quantized_model(model, rng):
    """Weights of int8 don't learn, but the head does."""
    model, x = model
    y = x[:, :D] + 0.3 * rng.normal(size=(64, D))
    quantized(model, "int8")
    model.compile(keras.optimizers.Adam(0.01), loss=losses.NegativeLogLikelihood())
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=5, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before - 0.1


def test_the_head_itself_is_refused(model):
    head = model[0].layers[-1]
    with pytest.raises(NotImplementedError, match=rf"Head '{head.name}' is not quantized"):
        head.quantize("int8")
