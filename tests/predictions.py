"""Valid predictions of a structure, and their likelihood by the oracle."""

import numpy as np

import oracle
from keras_mvn import covariances
from keras_mvn.layers.soft_clip import limits_of


def packed(name, rows, rng, d=3):
    """A valid y_pred of this structure, float64."""
    structure = covariances.get(name)
    scale, shape_params = structure.constrain(rng.normal(size=(rows, structure.raw_size(d))), d)
    return np.concatenate([rng.normal(size=(rows, d)), scale, shape_params], axis=-1)


def within(model, x):
    """Rows whose inputs are within those of the training rows: others are widened."""
    seen = limits_of(model).beyond(x).max(axis=1) == 0.0
    assert seen.mean() > 0.7
    return seen


def oracle_nll(name, y, y_pred, d=3):
    wire = covariances.get(name).wire.name
    return np.array(
        [
            oracle.negative_log_likelihood(wire, t, p[:d], p[d : 2 * d], p[2 * d :])
            for t, p in zip(y, y_pred, strict=True)
        ]
    )
