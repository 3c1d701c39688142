"""Is the model uncertain because the air is variable, or because it has seen too little data?

Five networks learn from stations in the east and the west of the United States, and from none
between 90° and 105° W. The uncertainty that all of them predict is the variability of the air
itself (aleatoric), which more rows would not remove; where they disagree, more data would help
(epistemic). They should disagree more in the middle, which they have never seen; a single network
does not know what it does not know.

    python examples/aleatoric_epistemic.py --data air.csv

trains the five networks (in one pass on JAX, one after another elsewhere).
"""

import numpy as np

import air
from keras_mvn.ensemble import DeepEnsemble

GAP = (-105.0, -90.0)
ROWS = 1500

options = air.arguments(__doc__)
data = air.load(options.data, options.seed)
longitude = data.inputs.index("Longitude")


def inside_gap(part: air.Part) -> np.ndarray:
    """Return which rows are from the part of the country that is excluded from training."""
    return (part.x[:, longitude] > GAP[0]) & (part.x[:, longitude] < GAP[1])


def outside(part: air.Part, rows: int) -> air.Part:
    """Return the first rows of the part that are not from there."""
    chosen = np.flatnonzero(~inside_gap(part))[:rows]
    return air.Part(part.x[chosen], part.y[chosen])


seen = data._replace(train=outside(data.train, ROWS), validation=outside(data.validation, 500))
ensemble = DeepEnsemble(lambda: air.build(seen), n_members=5, seed=options.seed)
ensemble.fit(
    *seen.train,
    validation_data=seen.validation,
    epochs=60,
    batch_size=128,
    patience=8,
    verbose=1,
)
mixture = ensemble.predict(data.test.x, batch_size=1024)
joint, single = mixture.moments(), mixture.components[0]

unseen = inside_gap(data.test)
share = (mixture.epistemic_stddev**2 / mixture.stddev**2).mean(axis=1)
print("\nshare of the variance that is epistemic, mean over six pollutants, by place\n")
print(f"{'':24s}{'rows':>6s}{'epistemic':>11s}{'90 % region holds':>26s}{'NLL per target':>30s}")
print(f"{'':41s}{'one network':>13s}{'ensemble':>13s}{'one network':>17s}{'ensemble':>13s}")
for name, rows in (("as in training", ~unseen), ("never seen", unseen)):
    y = data.test.y[rows]
    inside = [normal[rows].ellipsoid(0.9).contains(y).mean() for normal in (single, joint)]
    nll = [-single[rows].log_prob(y).mean() / 6, -mixture[rows].log_prob(y).mean() / 6]
    print(
        f"{name:24s}{rows.sum():6d}{100 * share[rows].mean():9.0f} %"
        f"{100 * inside[0]:11.0f} %{100 * inside[1]:11.0f} %{nll[0]:17.2f}{nll[1]:13.2f}"
    )
