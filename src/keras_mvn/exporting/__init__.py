"""From a trained model to a file that is served elsewhere, without this library or Keras.

`export` writes ONNX or TensorFlow's SavedModel whose outputs are means and covariances by name,
not y_pred. One file per idea: `_serving` is what is computed, `_ensemble` the same of several
networks and `_moments` how these are mixed, `_onnx` and `_saved_model` are the formats,
`_from_<backend>` how a backend's graph becomes ONNX, `_files` the writing.
"""

from __future__ import annotations

from keras_mvn.exporting._export import export as export

__all__ = ["export"]
