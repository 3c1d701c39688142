"""Recalibration of a trained model's predictions on rows it was not trained on."""

from keras_mvn.calibration.temperature import Temperature as Temperature

__all__ = ["Temperature"]
