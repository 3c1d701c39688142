"""How high is VLDL cholesterol? Total minus LDL minus HDL, from a model that predicts all three.

The model of `keras-mvn demo` predicts six blood-serum values jointly, among them total cholesterol
(s1), LDL (s2) and HDL (s3). How uncertain a difference of predictions is depends on their *joint*
errors: total and LDL cholesterol rise together, and their common part cancels. Adding the three
variances, as one would without the correlations, overstates the spread many times over.

    keras-mvn demo
    python examples/distribution_of_a_difference.py

reads keras-mvn-demo/model.keras, and compares both answers with the test patients.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from keras_mvn import MultivariateNormal
from keras_mvn_cli import _demonstration as demo

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--model", type=Path, default=Path("keras-mvn-demo/model.keras"))
options = parser.parse_args()
if not options.model.is_file():
    parser.error(f"there is no file {options.model}; run `keras-mvn demo` first")

patients = demo.load(seed=0).test  # rows that this model has not seen
model = keras.models.load_model(options.model)
normal = model.layers[-1].distribution(model.predict(patients.x, verbose=0))

vldl = normal.affine([[1.0, -1.0, -1.0, 0.0, 0.0, 0.0]], target_names=["VLDL"])
independent = MultivariateNormal.from_prediction(
    np.concatenate([normal.mean, normal.stddev], axis=1), "diagonal"
)
apart = independent.affine([[1.0, -1.0, -1.0, 0.0, 0.0, 0.0]], target_names=["VLDL"])
observed = patients.y[:, :1] - patients.y[:, 1:2] - patients.y[:, 2:3]
error = observed - vldl.mean

print(
    f"\nVLDL cholesterol (mg/dl) of {len(observed)} test patients: {observed.mean():.1f} on average"
)
print(f"errors of the predicted difference: standard deviation {error.std():.1f}\n")
print(f"{'':24s}{'predicted sd':>14s}{'90 % interval holds':>22s}{'NLL':>8s}")
for name, forecast in (("joint errors", vldl), ("as if independent", apart)):
    lower, upper = forecast.interval(0.9)
    inside = ((observed >= lower) & (observed <= upper)).mean()
    nll = -forecast.log_prob(observed).mean()
    print(f"{name:24s}{np.median(forecast.stddev):14.1f}{100 * inside:20.0f} %{nll:8.2f}")
