"""What drives the uncertainty, in words."""

import pytest

from keras_mvn.report import Driver

pytestmark = pytest.mark.once


def test_the_inputs_that_matter_are_named():
    inputs = [["wind", 0.8], ["hour", 0.4], ["<b>", 0.2], ["day", 0.01]]
    driver = Driver.of({"quantity": "stddev of a", "spread": 1.0, "inputs": inputs})
    assert [name for name, _ in driver.mentioned] == ["wind", "hour", "<b>"]
    assert driver.sentence == (
        "The stddev of a varies by 1.0 between rows, above all with wind (0.80), hour (0.40) and "
        "<b> (0.20)."
    )


def test_nothing_moves_it():
    driver = Driver.of({"quantity": "log-volume", "spread": 0.0, "inputs": [["wind", 0.0]]})
    assert not driver.mentioned
    assert "No input moves the log-volume by much" in driver.sentence
