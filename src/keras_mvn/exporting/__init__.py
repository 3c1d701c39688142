"""Export of trained models to files that are served without this library or Keras.

`export` writes ONNX or TensorFlow's SavedModel, with named means and covariances as outputs in
place of y_pred. `_serving` defines the computation, from the inputs in `_signature` to the outputs
in `_outputs`; `_ensemble` does so for several networks, whose predictions `_moments` mixes; `_onnx`
and `_saved_model` are the formats; `_from_<backend>` converts a backend's graph to ONNX.
"""

from __future__ import annotations

from keras_mvn.exporting._export import export as export

__all__ = ["export"]
