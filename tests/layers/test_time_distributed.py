"""The head in `keras.layers.TimeDistributed`, against the head applied to (batch, time, features).

Keras calls the wrapped layer once for each step, and adds up the losses of all calls.
"""

import keras
import numpy as np
import pytest

from differentiation import numpy, tensor
from keras_mvn import callbacks, losses
from keras_mvn.layers import MultivariateNormalHead

BACKEND = keras.backend.backend()
D, STEPS = 2, 4
LENGTHS = np.array([4, 1, 3, 0, 2])


@pytest.fixture
def x(rng):
    return rng.normal(size=(len(LENGTHS), STEPS, 3)).astype("float32")


def head_of(rng, **options):
    head = MultivariateNormalHead(D, **{"shrinkage": 0.7, **options})
    head.adapt(rng.normal(size=(50, D)))
    return head


def expected_penalty(head, features):
    """½ λ (mean over rows of Σ raw²) in NumPy; features (rows, f) as the head sees them."""
    raw = np.asarray(features, np.float64) @ numpy(head.covariance_dense.kernel)
    return 0.5 * 0.7 * np.mean(np.sum(raw**2, axis=-1))


def penalty_of(layer, *arguments, **keywords):
    layer(*arguments, training=True, **keywords)
    return float(sum(numpy(loss) for loss in layer.losses))


class TestPenalty:
    def test_is_that_of_all_steps(self, x, rng):
        head = head_of(rng)
        layer = keras.layers.TimeDistributed(head)
        for rows in (x, 2.0 * x[:2, :3]):  # nothing is left over from another call
            found = penalty_of(layer, tensor(rows))
            expected = expected_penalty(head, rows.reshape(-1, 3))
            assert found == pytest.approx(expected, rel=1e-5)
            assert penalty_of(head, tensor(rows)) == pytest.approx(expected, rel=1e-5)

    def test_masked_steps_weigh_nothing(self, x, rng):
        head = head_of(rng)
        mask = np.arange(STEPS) < LENGTHS[:, None]
        found = penalty_of(keras.layers.TimeDistributed(head), tensor(x), mask=tensor(mask, "bool"))
        assert found == pytest.approx(expected_penalty(head, x[mask]), rel=1e-5)

    def test_in_a_model_per_step(self, x, rng):
        head = head_of(rng)
        step = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, "tanh"), head])
        found = penalty_of(keras.layers.TimeDistributed(step), tensor(x))
        features = numpy(step.layers[0](tensor(x.reshape(-1, 3))))
        assert found == pytest.approx(expected_penalty(head, features), rel=1e-5)

    def test_in_one_another(self, x, rng):
        head = head_of(rng)
        layer = keras.layers.TimeDistributed(keras.layers.TimeDistributed(head))
        found = penalty_of(layer, tensor(x[None].repeat(2, axis=0)))
        assert found == pytest.approx(expected_penalty(head, x.reshape(-1, 3)), rel=1e-5)

    def test_two_of_them_add_up(self, x, rng):
        """As for a head that is applied to two inputs."""
        head = head_of(rng)
        inputs = [keras.Input((STEPS, 3)) for _ in range(2)]
        layer = keras.layers.TimeDistributed(head)
        model = keras.Model(inputs, [layer(one) for one in inputs])
        found = penalty_of(model, [tensor(x), tensor(2.0 * x)])
        one = expected_penalty(head, x.reshape(-1, 3))
        assert found == pytest.approx(5.0 * one, rel=1e-5)

    def test_tensors_of_a_call_are_not_kept(self, x, rng):
        head = head_of(rng)
        keras.layers.TimeDistributed(head)(tensor(x), training=True)
        assert not head._mean_penalty._so_far


def trained(wrapped, data, steps, masked=False, watched_by=(), **options):
    """A model's weights and curves after two epochs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    head = head_of(rng, **options)
    layer = keras.layers.TimeDistributed(head) if wrapped else head
    masking = [keras.layers.Masking()] if masked else []
    model = keras.Sequential(
        [keras.Input((steps, 3)), *masking, keras.layers.Dense(5, "tanh"), layer]
    )
    model.compile(keras.optimizers.SGD(0.05), loss=losses.NegativeLogLikelihood())
    history = model.fit(
        *data, epochs=2, batch_size=5, shuffle=False, verbose=0, callbacks=list(watched_by)
    )
    return model.get_weights(), history.history


def test_training_is_that_of_the_head(x, rng):
    """With a callback that has to find the head."""
    x[np.arange(STEPS) >= LENGTHS[:, None]] = 0.0  # Masking's mask value
    data = x, rng.normal(size=(*x.shape[:2], D))
    monitor = callbacks.CovarianceMonitor(*data)
    (weights, curves), (expected_weights, expected_curves) = (
        trained(wrapped, data, STEPS, masked=True, watched_by=[monitor])
        for wrapped in (True, False)
    )
    for found, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert curves.keys() == expected_curves.keys() > {"loss", "cov_squared_z"}
    for name, expected in expected_curves.items():
        np.testing.assert_allclose(curves[name], expected, rtol=1e-4, err_msg=name)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own: T is known elsewhere")
class TestUnknownLengths:
    """Keras maps the layer over as many steps as there are rows (keras 3.15)."""

    @pytest.fixture
    def data(self, rng):
        """Batches of different lengths."""
        import tensorflow as tf

        batches = [
            (rng.normal(size=(5, steps, 3)), rng.normal(size=(5, steps, D))) for steps in (2, 6)
        ]
        specs = tuple(tf.TensorSpec((None, None, width)) for width in (3, D))
        made = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=specs)
        return (made.apply(tf.data.experimental.assert_cardinality(2)),)

    @pytest.mark.parametrize("shrinkage", [None, 0.7])
    def test_are_refused(self, shrinkage, data):
        with pytest.raises(
            ValueError, match=r"number of steps is unknown.*itself to \(batch, time"
        ):
            trained(True, data, None, shrinkage=shrinkage)

    def test_are_refused_in_inference(self, x, rng):
        import tensorflow as tf

        layer = keras.layers.TimeDistributed(head_of(rng))
        served = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 3))])
        with pytest.raises(ValueError, match="number of steps is unknown"):
            served(x)

    def test_the_head_itself_takes_them(self, data):
        _, curves = trained(False, data, None)
        assert curves["loss"][1] < curves["loss"][0]

    def test_a_known_length_is_not_refused(self, x, rng):
        head = head_of(rng)
        model = keras.Sequential([keras.Input((None, 3)), keras.layers.TimeDistributed(head)])
        np.testing.assert_allclose(
            model.predict(x, verbose=0), numpy(head(tensor(x))), rtol=1e-6, atol=1e-6
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")
def test_shrinkage_is_refused_where_its_loss_would_be_dropped(x, rng):
    import tensorflow as tf

    head = head_of(rng)
    head.build((None, 3))
    with pytest.raises(ValueError, match=r"shrinkage=0.7 adds a loss.*shrinkage=None"):
        tf.vectorized_map(lambda x: head(x, training=True), x)
    mapped = tf.vectorized_map(head, x)
    np.testing.assert_allclose(numpy(mapped), numpy(head(tensor(x))), rtol=1e-5, atol=1e-6)
