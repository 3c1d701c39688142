"""Predictions of fitted models, in batches of tables, in this process or in workers elsewhere."""

from keras_mvn.serving.batch_predictor import BatchPredictor as BatchPredictor
from keras_mvn.serving.fitted_model import FittedModel as FittedModel
from keras_mvn.serving.http import create_app as create_app

__all__ = ["BatchPredictor", "FittedModel", "create_app"]
