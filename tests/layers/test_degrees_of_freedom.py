"""The degrees of freedom that a head writes, and the Student's t that it then predicts."""

import keras
import numpy as np
import pytest
import scipy.stats

from differentiation import numpy, tensor
from keras_mvn import MultivariateNormal, MultivariateStudentT
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._degrees_of_freedom import bounded
from keras_mvn.losses import NegativeLogLikelihood, StudentT

OPTIONS = [6.5, "constant", "per_row"]


def table(rows=600, seed=0):
    """Targets whose tails are heavy where x > 0 and nearly normal elsewhere."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, size=(rows, 2))
    nu = np.where(x[:, :1] > 0, 2.5, 100.0)
    z = rng.normal(size=(rows, 2)) / np.sqrt(rng.chisquare(nu) / nu)
    return x, (x @ [[1.0, 0.5], [0.0, 2.0]] + 0.3 * z) * [1.0, 50.0]


@pytest.mark.parametrize("option", OPTIONS)
class TestHead:
    def test_starts_at_the_covariance_of_the_data(self, option):
        _, y = table()
        head = MultivariateNormalHead(2, degrees_of_freedom=option)
        head.adapt(y)
        y_pred = numpy(head(tensor(np.zeros((1, 3)))))
        assert y_pred.shape == (1, 6)
        assert tuple(head.compute_output_shape((None, 3))) == (None, 6)
        t = head.distribution(y_pred)
        assert isinstance(t, MultivariateStudentT)
        assert t.degrees_of_freedom[0] == pytest.approx(6.5 if option == 6.5 else 10.0, rel=1e-5)
        np.testing.assert_allclose(t.mean[0], y.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(t.covariance[0], np.cov(y.T), rtol=0.01)

    def test_the_loss_is_the_density_of_what_it_predicts(self, option, rng):
        head = MultivariateNormalHead(2, degrees_of_freedom=option)
        y_pred = head(tensor(rng.normal(size=(7, 3))))
        y = rng.normal(size=(7, 2))
        y[2, 1] = np.nan
        loss = StudentT("learned", missing="marginalize", reduction=None)
        expected = -head.distribution(numpy(y_pred)).log_prob(y, "marginalize")
        np.testing.assert_allclose(numpy(loss(tensor(y), y_pred)), expected, rtol=1e-4)
        with pytest.raises(ValueError, match="layout='student_t'"):
            NegativeLogLikelihood()(tensor(np.zeros((7, 2))), y_pred)

    def test_a_saved_model_predicts_the_same(self, option, tmp_path, rng):
        model = keras.Sequential(
            [keras.Input((3,)), MultivariateNormalHead(2, degrees_of_freedom=option)]
        )
        x = rng.normal(size=(5, 3)).astype("float32")
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
        assert again.layers[-1].degrees_of_freedom == option


class TestPerRow:
    def test_the_link(self):
        raw = np.array([-40.0, 0.0, 1e-3, 40.0])
        found = numpy(bounded(tensor(raw)))
        np.testing.assert_allclose(found, [2.0, 10.0, 2.0 + 8.0 * np.exp(1e-3), 1e4], rtol=1e-4)

    def test_finds_where_tails_are_heavy(self):
        x, y = table(3000)
        head = MultivariateNormalHead(2, degrees_of_freedom="per_row")
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, "gelu"), head])
        model.compile(keras.optimizers.Adam(0.02), StudentT("learned"))
        model.fit(x, y, epochs=25, batch_size=250, verbose=0)
        t = head.distribution(model.predict(x, verbose=0))
        heavy, light = (t.degrees_of_freedom[part] for part in (x[:, 0] > 0.2, x[:, 0] < -0.2))
        assert np.median(heavy) < 4.5
        assert np.median(light) > 12.0
        x_new, y_new = table(2000, seed=1)
        found = head.distribution(model.predict(x_new, verbose=0))
        levels = found.region_level(y_new)
        assert scipy.stats.kstest(levels, "uniform").statistic < 0.06
        assert found.log_prob(y_new).mean() > found.moments().log_prob(y_new).mean() + 0.05

    @pytest.mark.parametrize("strength", [0.0, 2.0])
    def test_what_x_adds_is_shrunk(self, strength, rng):
        head = MultivariateNormalHead(
            2, degrees_of_freedom="per_row", constant="covariance", shrinkage=strength
        )
        x = rng.normal(size=(9, 3))
        y_pred = head(tensor(x), training=True)
        raw = x @ numpy(head.degrees_of_freedom_dense.kernel)
        expected = 0.5 * strength * (raw**2).mean()
        assert sum(float(numpy(one)) for one in head.losses) == pytest.approx(expected, rel=1e-5)
        assert y_pred.shape[-1] == 6


@pytest.mark.parametrize("option", [2.0, 0.5, -1.0, np.nan, np.inf, True, "learned", "row"])
def test_what_is_refused(option):
    with pytest.raises(ValueError, match=r"degrees_of_freedom=.*must be None .*'per_row'"):
        MultivariateNormalHead(2, degrees_of_freedom=option)


def test_a_normal_head_predicts_normals(rng):
    head = MultivariateNormalHead(2)
    found = head.distribution(numpy(head(tensor(rng.normal(size=(2, 3))))))
    assert isinstance(found, MultivariateNormal)
