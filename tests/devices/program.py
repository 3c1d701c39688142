"""Trains a small network on several devices, and writes its losses and weights.

    python program.py DEVICES LOSS OUT

DEVICES is one, data, model (JAX, on the devices that XLA_FLAGS makes) or mirrored (TensorFlow, on
two logical CPUs). Rows have gaps and weights; the head has shrinkage.
"""

import contextlib
import json
import sys

import keras
import numpy as np

import keras_mvn as kmvn

ROWS, FEATURES, TARGETS, BATCH = 256, 5, 3, 64


def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    y = x[:, :TARGETS] * [1.0, 10.0, 0.1] + rng.normal(size=(ROWS, TARGETS)) * [0.5, 5.0, 0.02]
    y[rng.random(y.shape) < 0.2] = np.nan
    return x, y.astype("float32"), rng.uniform(0.5, 2.0, size=ROWS).astype("float32")


def network(loss, y):
    keras.utils.set_random_seed(0)
    head = kmvn.layers.MultivariateNormalHead(TARGETS, name="head", shrinkage=0.01)
    head.adapt(y)
    inputs = keras.Input((FEATURES,))
    model = keras.Model(inputs, head(keras.layers.Dense(16, "tanh")(inputs)))
    model.compile(
        keras.optimizers.SGD(0.02),
        loss=getattr(kmvn.losses, loss)(missing="marginalize"),
        metrics=[
            kmvn.metrics.NegativeLogLikelihood(missing="marginalize"),
            kmvn.metrics.Coverage(0.9, missing="marginalize"),
        ],
    )
    return model


def on_jax(kind):
    """Make Keras distribute what follows."""
    devices = keras.distribution.list_devices()
    assert len(devices) == 4, devices
    if kind == "data":
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        return
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout["dense/kernel"] = (None, "model")
    layout[".*mean/kernel"] = ("model", None)  # the head's kernels, sharded by its inputs
    layout[".*covariance/kernel"] = ("model", None)
    parallel = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    keras.distribution.set_distribution(parallel)


def scope_of(kind):
    """Return the scope in which the network is made and trained."""
    if kind in ("data", "model"):
        on_jax(kind)
    if kind != "mirrored":
        return contextlib.nullcontext()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


def main(kind, loss, out):
    x, y, weight = table()
    with scope_of(kind):
        model = network(loss, y)
        history = model.fit(
            x, y, sample_weight=weight, batch_size=BATCH, epochs=3, shuffle=False, verbose=0
        )
    np.savez(out, *[np.asarray(keras.ops.convert_to_numpy(w)) for w in model.trainable_weights])
    print(json.dumps(history.history))


if __name__ == "__main__":
    main(*sys.argv[1:])
