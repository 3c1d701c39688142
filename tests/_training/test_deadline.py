"""Deadlines: a share of the time, and epochs that come before the share of others."""

import time

import pytest

from keras_mvn._training.deadline import FEWEST_EPOCHS, Deadline

pytestmark = pytest.mark.once


def test_first_epochs_may_take_the_share_of_others():
    now = time.monotonic()
    over = Deadline(now - 1.0, now + 100.0)
    assert not over.passed(1)
    assert not over.passed(FEWEST_EPOCHS - 1)
    assert over.passed(FEWEST_EPOCHS)
    assert Deadline(now - 2.0, now - 1.0).passed(1)
    assert not Deadline(now + 50.0, now + 100.0).passed(FEWEST_EPOCHS, ahead=10.0)
    assert Deadline(now + 50.0, now + 100.0).passed(FEWEST_EPOCHS, ahead=60.0)


def test_networks_in_turn_divide_what_is_left():
    now = time.monotonic()
    first = Deadline(now + 40.0, now + 80.0).divided(4)
    assert first.share - now == pytest.approx(10.0, abs=0.1)
    assert first.latest - now == pytest.approx(20.0, abs=0.1)
    past = Deadline(now - 40.0, now - 1.0).divided(4)
    assert past.passed(0)
