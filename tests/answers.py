"""One answer of every kind, and quadrature of its density in the plane."""

import numpy as np

from keras_mvn import Mixture, MultivariateNormal
from keras_mvn.covariances import LowRank
from keras_mvn.distributions import MultivariateStudentT, TransformedDistribution
from keras_mvn.distributions._transforms import BoxCox, Log, YeoJohnson

NAMES = ["a", "b"]
SIGMA = np.array([[0.64, 0.3], [0.3, 0.36]])


def normal(mean=(1.0, 2.0), covariance=SIGMA):
    return MultivariateNormal(mean, covariance=covariance, target_names=NAMES)


def student(nu=4.0, location=(1.0, 2.0)):
    return MultivariateStudentT(location, nu, scale_matrix=SIGMA, target_names=NAMES)


def low_rank(nu):
    y_pred = [[1.0, 2.0, 0.5, 0.4, 1.1, -0.8, nu]]
    t = MultivariateStudentT.from_prediction(y_pred, LowRank(1), target_names=NAMES)
    return t[0]


ANSWERS = {
    "normal": normal(),
    "t": student(),
    "t, low rank": low_rank(5.0),
    "t, nearly normal": student(1e6),
    "mixture of normals": Mixture([normal(), normal((3.0, 1.0), np.diag([0.2, 0.5]))], [0.7, 0.3]),
    "mixture of t and normal": Mixture([student(5.0), normal((3.0, 1.0))], [0.4, 0.6]),
    "mixture of mixtures": Mixture(
        [Mixture([student(5.0), low_rank(6.0)], [0.5, 0.5]), normal((0.0, 0.0))], [0.8, 0.2]
    ),
    "log of a normal": TransformedDistribution(normal((0.1, 0.2), 0.3 * SIGMA), Log(2)),
    "Box-Cox of a t": TransformedDistribution(
        student(9.0, (3.0, 4.0)), BoxCox(np.array([0.7, 1.0]), np.array([1.0, 2.0]))
    ),
    "Yeo-Johnson of a mixture": TransformedDistribution(
        Mixture([normal(), normal((2.0, -1.0))], [0.5, 0.5]),
        YeoJohnson(np.array([1.2, 0.8]), np.array([1.0, 3.0])),
    ),
}


class Plane:
    """Quadrature of a density over the plane, by points that reach far into the tails."""

    def __init__(self, answer, points=700):
        u = np.linspace(-7.0, 7.0, points)
        center = answer.median
        scale = np.diff(answer.quantile([0.4, 0.6]), axis=0)[0]
        self.axes = [m + 2.0 * s * np.sinh(u) for m, s in zip(center, scale, strict=True)]
        self.widths = [2.0 * s * np.cosh(u) * (u[1] - u[0]) for s in scale]
        self.y = np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1)
        inside = np.ones(self.y.shape[:-1], bool)
        if isinstance(answer, TransformedDistribution):
            inside = (self.y > answer.transform.lowest).all(axis=-1)
        self.log_density = np.full(inside.shape, -np.inf)
        self.log_density[inside] = answer.log_prob(self.y[inside])
        self.density = np.exp(self.log_density)
        self.mass = self.density * np.multiply.outer(*self.widths)

    def mean_of(self, values):
        return (self.mass[..., None] * np.asarray(values).reshape(*self.mass.shape, -1)).sum((0, 1))
