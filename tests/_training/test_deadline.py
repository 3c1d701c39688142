"""Deadlines: a share of the time, and epochs that come before the share of others."""

import pytest

from keras_mvn._training import deadline
from keras_mvn._training.deadline import FEWEST_EPOCHS, Deadline

pytestmark = pytest.mark.once

NOW = 1000.0


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(deadline.time, "monotonic", lambda: NOW)


def test_first_epochs_may_take_the_share_of_others():
    over = Deadline(NOW - 1.0, NOW + 100.0)
    assert not over.passed(1)
    assert not over.passed(FEWEST_EPOCHS - 1)
    assert over.passed(FEWEST_EPOCHS)
    assert Deadline(NOW - 2.0, NOW - 1.0).passed(1)
    assert not Deadline(NOW + 50.0, NOW + 100.0).passed(FEWEST_EPOCHS, ahead=10.0)
    assert Deadline(NOW + 50.0, NOW + 100.0).passed(FEWEST_EPOCHS, ahead=60.0)


def test_networks_in_turn_divide_what_is_left():
    first = Deadline(NOW + 40.0, NOW + 80.0).divided(4)
    assert first == Deadline(NOW + 10.0, NOW + 20.0)
    assert Deadline(NOW - 40.0, NOW - 1.0).divided(4) == Deadline(NOW, NOW)
