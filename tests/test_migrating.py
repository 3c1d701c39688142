"""The three hand-written losses' models train when only their `loss=` changes.

They are those of docs/migrating.md, on standardized targets, and must beat a constant covariance.
"""

import keras
import numpy as np
import pytest

import keras_mvn as kmvn

D = 3


def problem(n, rng):
    """Targets whose scales and correlations vary with x; standardized."""
    x = rng.uniform(-2, 2, size=(n, 2))
    z = rng.normal(size=(n, D))
    scale = np.exp(0.6 * x[:, :1] * np.array([1.0, -1.0, 0.5]))
    mixed = z.copy()
    mixed[:, 1] = np.tanh(2 * x[:, 1]) * z[:, 0] + 0.3 * z[:, 1]
    mixed[:, 2] = 0.8 * z[:, 1] + 0.5 * z[:, 2]
    y = np.stack([x[:, 0], x[:, 1] ** 2, x[:, 0] * x[:, 1]], -1) + scale * mixed
    return x, (y - y.mean(0)) / y.std(0)


def hidden():
    return [keras.Input((2,)), keras.layers.Dense(32, "gelu"), keras.layers.Dense(32, "gelu")]


MODELS = {
    "cholesky factor": (
        lambda: [keras.layers.Dense(D * (1 + D)), keras.layers.Reshape((D, 1 + D))],
        {"covariance": "cholesky", "from_raw": True, "layout": "stacked"},
    ),
    "mean and log-variance": (
        lambda: [keras.layers.Dense(2 * D)],
        {"layout": "mean_log_variance"},
    ),
    "covariance matrix": (
        lambda: [keras.layers.Dense(D * (1 + D)), keras.layers.Reshape((D, 1 + D))],
        {"covariance": "symmetric", "from_raw": True, "layout": "stacked"},
    ),
    "covariance matrix, L1": (
        lambda: [keras.layers.Dense(D * (1 + D)), keras.layers.Reshape((D, 1 + D))],
        {
            "covariance": "symmetric",
            "from_raw": True,
            "layout": "stacked",
            "regularizer": kmvn.regularizers.CovarianceL1(0.01),
        },
    ),
}


@pytest.fixture(scope="module")
def data():
    """Rows to train on, and others to test with."""
    keras.utils.set_random_seed(0)
    x, y = problem(1500, np.random.default_rng(0))
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@pytest.fixture(scope="module")
def baseline(data):
    """The negative log-likelihood of an MSE net, and one covariance of its residuals."""
    train, test = data
    model = keras.Sequential([*hidden(), keras.layers.Dense(D)])
    model.compile(keras.optimizers.Adam(5e-3), loss="mse")
    model.fit(*train, epochs=30, batch_size=64, verbose=0)
    r = train[1] - model.predict(train[0], verbose=0)
    normal = kmvn.MultivariateNormal(model.predict(test[0], verbose=0), covariance=r.T @ r / len(r))
    return -normal.log_prob(test[1]).mean()


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.elsewhere(False)
def test_only_the_loss_changes(kind, data, baseline):
    train, test = data
    output, arguments = MODELS[kind]
    model = keras.Sequential([*hidden(), *output()])
    model.compile(keras.optimizers.Adam(5e-3), loss=kmvn.losses.NegativeLogLikelihood(**arguments))
    history = model.fit(*train, epochs=30, batch_size=64, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    reading = {k: v for k, v in arguments.items() if k != "regularizer"}
    normal = kmvn.MultivariateNormal.from_prediction(model.predict(test[0], verbose=0), **reading)
    ours = -normal.log_prob(test[1]).mean()
    # A diagonal knows no correlations: for it, the constant covariance loses its own.
    assert ours < baseline - (0.05 if kind != "mean and log-variance" else -0.2)
