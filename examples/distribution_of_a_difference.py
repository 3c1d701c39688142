"""How high is VLDL cholesterol? Total minus LDL minus HDL, from a model that predicts all three.

A network (that of diabetes.py, trained here on the table that ships with scikit-learn) predicts six
blood-serum values jointly, among them total cholesterol (s1), LDL (s2) and HDL (s3). How uncertain
a difference of predictions is depends on their *joint* errors: total and LDL cholesterol rise
together, and their common part cancels. Adding the three variances, as one would without the
correlations, overstates the spread many times over.

    python examples/distribution_of_a_difference.py
"""

import numpy as np

from diabetes import METHODS, run
from keras_mvn import MultivariateNormal

outcome = run(seed=0)
patients = outcome.split.test  # rows that this model has not seen
normal = outcome.predictions[METHODS[2]]

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
