"""Losses and heads in TensorFlow's maps and Jacobians, against their gradients outside of them."""

import keras
import numpy as np
import pytest

from differentiation import numpy, tensor, value_and_gradients
from keras_mvn import kernels, losses
from keras_mvn.layers import MultivariateNormalHead
from predictions import packed
from structures import STRUCTURES, named

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")
D, GROUPS, ROWS = 3, 4, 5
NU = 5.0

LOSSES = {
    "BalancedNegativeLogLikelihood": {},
    "BalancedStudentT": {"degrees_of_freedom": NU},
    "BetaNegativeLogLikelihood": {"target_scale": 1.3},
    "CRPS": {"target_scale": 1.3},
    "EnergyScore": {"target_scale": 1.3},
    "FaithfulNegativeLogLikelihood": {"target_scale": 1.3},
    "NaturalGradientNegativeLogLikelihood": {"target_scale": 1.3},
    "NegativeLogLikelihood": {},
    "StudentT": {"degrees_of_freedom": NU},
    "VariogramScore": {"target_scale": 1.3},
}


@pytest.mark.once
def test_every_loss_is_here():
    others = {
        "CovarianceLoss",
        "UnitFreeLoss",
        "MixtureNegativeLogLikelihood",
    }  # its y_pred is wider
    assert set(LOSSES) == set(losses.__all__) - others


@pytest.fixture
def rows(rng):
    """y (groups, rows, d) and a valid y_pred."""
    y = rng.normal(size=(GROUPS, ROWS, D))
    y_pred = packed("cholesky", GROUPS * ROWS, rng, D).reshape(GROUPS, ROWS, -1)
    return tensor(y), tensor(y_pred)


def close(got, expected):
    expected = numpy(expected)
    np.testing.assert_allclose(numpy(got), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def gradient_by_group(loss, y, y_pred):
    """The gradient of each group on its own, in eager mode: that is tested elsewhere."""
    gradients = [
        value_and_gradients(lambda p, y=y: keras.ops.sum(loss(y, p)), y_pred)[1][0]
        for y, y_pred in zip(y, y_pred, strict=True)
    ]
    return np.stack(gradients)


def check_vectorized_map(loss, y, y_pred):
    """The gradient of each group from inside, and that of all from outside."""
    import tensorflow as tf

    def values_and_gradient(pair):
        with tf.GradientTape() as tape:
            tape.watch(pair[1])
            values = loss(*pair)
        return values, tape.gradient(values, pair[1])

    with tf.GradientTape() as tape, kernels.recording() as ran:
        tape.watch(y_pred)
        values, inside = tf.vectorized_map(values_and_gradient, (y, y_pred))
    assert {one.path for one in ran} <= {"reference"}
    close(values, [loss(*pair) for pair in zip(y, y_pred, strict=True)])
    expected = gradient_by_group(loss, y, y_pred)
    close(inside, expected)
    close(tape.gradient(values, y_pred), expected)


def check_map_fn(loss, y, y_pred):
    import tensorflow as tf

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            values = tf.map_fn(
                lambda pair: loss(*pair), (y, y_pred), fn_output_signature=tf.float32
            )
        return tape.gradient(values, y_pred)

    close(gradient(), gradient_by_group(loss, y, y_pred))


@on_tensorflow
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.elsewhere(name=["NaturalGradientNegativeLogLikelihood", "NegativeLogLikelihood"])
class TestLosses:
    @pytest.fixture
    def loss(self, name):
        return getattr(losses, name)(reduction=None, **LOSSES[name])

    def test_vectorized_map(self, loss, rows):
        check_vectorized_map(loss, *rows)

    def test_map_fn(self, loss, rows):
        check_map_fn(loss, *rows)

    def test_jacobian(self, loss, rows):
        """Row i of the loss depends on row i of y_pred alone."""
        import tensorflow as tf

        expected = gradient_by_group(loss, *rows)
        y, y_pred = (x[0] for x in rows)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            values = loss(y, y_pred)
        jacobian = numpy(tape.jacobian(values, y_pred))
        close(np.einsum("iij->ij", jacobian), expected[0])
        assert np.abs(jacobian * (1.0 - np.eye(ROWS))[:, :, None]).max() == 0.0


@on_tensorflow
@pytest.mark.parametrize("check", [check_vectorized_map, check_map_fn])
@pytest.mark.elsewhere(check=[check_map_fn])
def test_missing_targets(check, rows):
    """Without a kernel, so that the gradient is a custom one in a branch."""
    y, y_pred = rows
    y = numpy(y).copy()
    y[1, 2, 0] = np.nan
    loss = losses.NegativeLogLikelihood(reduction=None, missing="marginalize", fused=False)
    check(loss, tensor(y), y_pred)


@on_tensorflow
@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
@pytest.mark.elsewhere(structure=["symmetric"])
def test_heads(structure, rng):
    """Zero kernels: equal eigenvalues and zero correlations, where autodiff would be wrong."""
    import tensorflow as tf

    d = 4  # as the structures expect
    head = MultivariateNormalHead(
        d, structure, covariance_kernel_initializer="zeros", shrinkage=None
    )
    x = tensor(rng.normal(size=(GROUPS, ROWS, 2)))
    y = tensor(rng.normal(size=(GROUPS, ROWS, d)))
    loss = losses.NegativeLogLikelihood(structure, reduction="sum")
    head.build((None, 2))

    def gradients(function):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(function())
        return tape.gradient(value, [weight.value for weight in head.trainable_variables])

    expected = gradients(lambda: loss(y, head(x, training=True)))
    mapped = gradients(
        lambda: tf.vectorized_map(lambda pair: loss(pair[0], head(pair[1], training=True)), (y, x))
    )
    for got, one in zip(mapped, expected, strict=True):
        close(got, one)


@on_tensorflow
def test_the_jacobian_of_a_head(rng):
    import tensorflow as tf

    head = MultivariateNormalHead(D, shrinkage=None)
    x = tensor(rng.normal(size=(1, 2)))
    head(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y_pred = head(x, training=True)[0]
    jacobian = numpy(tape.jacobian(y_pred, x))[:, 0]
    for column in range(2):
        step = 1e-3 * np.eye(2)[column]
        up, down = (numpy(head(x + sign * step))[0].astype(float) for sign in (1.0, -1.0))
        np.testing.assert_allclose(jacobian[:, column], (up - down) / 2e-3, rtol=1e-2, atol=1e-3)


@on_tensorflow
def test_a_fused_loss_says_why_it_is_refused(rows):
    import tensorflow as tf

    loss = losses.NegativeLogLikelihood(fused=True, reduction=None)
    with pytest.raises(ValueError, match=r"fused=True.*tf.vectorized_map"):
        tf.vectorized_map(lambda pair: loss(*pair), rows)


@on_tensorflow
def test_only_the_mapped_function_is_affected(rows):
    import tensorflow as tf

    y, y_pred = rows
    loss = losses.NegativeLogLikelihood(reduction=None)

    @tf.function
    def both():
        return tf.vectorized_map(lambda pair: loss(*pair), (y, y_pred)), loss(y, y_pred)

    with kernels.recording() as ran:
        mapped, whole = both()
    close(mapped, whole)
    assert [one.path for one in ran] == ["reference", "fast"]
