"""What `adapt` reads targets from: datasets without end, of unknown length, of several outputs."""

import itertools

import keras
import numpy as np
import pandas
import pytest

from keras_mvn.covariances import _target_batches
from keras_mvn.layers import MultivariateNormalHead

Y = np.random.default_rng(0).normal(size=(64, 2)) * [1.0, 5.0] + [3.0, -7.0]


class Dataset:
    """An iterable with TensorFlow's `cardinality`."""

    def __init__(self, batches, count):
        self.batches, self.count = batches, count

    def __iter__(self):
        return iter(self.batches)

    def cardinality(self):
        return self.count


def adapted(data):
    head = MultivariateNormalHead(2)
    head.adapt(data)
    return np.asarray(keras.ops.convert_to_numpy(head.origin_mean))


@pytest.mark.once
class TestLength:
    def test_an_infinite_dataset_is_refused(self):
        endless = Dataset(itertools.repeat((Y, Y)), _target_batches.INFINITE)
        with pytest.raises(ValueError, match=r"infinite dataset.*\.repeat\(\)"):
            adapted(endless)

    def test_a_dataset_without_a_length_is_refused(self):
        class Endless(keras.utils.PyDataset):
            def __getitem__(self, index):
                return Y, Y

            @property
            def num_batches(self):
                return None

        with pytest.raises(ValueError, match="without a length"):
            adapted(Endless())

    @pytest.mark.parametrize("known", [True, False])
    def test_reading_stops_where_the_length_is_unknown(self, monkeypatch, known):
        monkeypatch.setattr(_target_batches, "MOST_ROWS", 100)
        batches = [(None, Y), (None, Y), (None, Y + 100.0)]
        if known:
            found = adapted(Dataset(batches, 3))
            np.testing.assert_allclose(found, Y.mean(axis=0) + 100.0 / 3, rtol=1e-5)
            np.testing.assert_allclose(adapted(batches), found, rtol=1e-6)
            return
        for unknown in ((batch for batch in batches), Dataset(batches, -2)):
            with pytest.warns(UserWarning, match="read the first 128 rows"):
                found = adapted(unknown)
            np.testing.assert_allclose(found, Y.mean(axis=0), rtol=1e-5)


@pytest.mark.once
class TestSeveralOutputs:
    @pytest.mark.parametrize("y", [{"position": Y, "speed": Y}, (Y, Y)])
    def test_the_map_to_write_is_named(self, y):
        key = "position" if isinstance(y, dict) else "0"
        with pytest.raises(ValueError, match=rf"several outputs.*lambda x, y: y\['?{key}'?\]"):
            adapted([(Y, y)])

    def test_lists_of_rows_and_frames_are_tables(self):
        expected = Y.mean(axis=0)
        np.testing.assert_allclose(adapted(Y.tolist()), expected, rtol=1e-5)
        np.testing.assert_allclose(adapted([Y]), expected, rtol=1e-5)
        np.testing.assert_allclose(adapted(pandas.DataFrame(Y)), expected, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data")
def test_datasets_of_tensorflow():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((Y, Y)).batch(16)
    with pytest.raises(ValueError, match="infinite dataset"):
        adapted(dataset.repeat())
    np.testing.assert_allclose(adapted(dataset), Y.mean(axis=0), rtol=1e-5)
    named = tf.data.Dataset.from_tensor_slices((Y, {"a": Y, "b": Y})).batch(16)
    with pytest.raises(ValueError, match="lambda x, y: y"):
        adapted(named)
    np.testing.assert_allclose(adapted(named.map(lambda x, y: y["a"])), Y.mean(axis=0), rtol=1e-5)
