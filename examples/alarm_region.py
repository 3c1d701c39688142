"""When to raise an alarm about unusual values of six pollutants, with guaranteed few false alarms?

The region is an ellipsoid around the prediction, its size set by conformal calibration: whatever
the true distribution of the errors, at most 5 % of ordinary days fall outside. A joint region also
detects what no single pollutant shows: a sensor whose value fits the season but not the other five.

    python examples/alarm_region.py --data air.csv

prints false alarm rates, overall and by setting, and how many broken sensors each alarm detects.
"""

import numpy as np

import air
import keras_mvn as kmvn
from keras_mvn import calibration

LEVEL = 0.95
SHIFT = 3.0
"""Error of the faulty NO2 sensor, in conditional standard deviations given the others."""

options = air.arguments(__doc__)
data = air.load(options.data, options.seed)
model = air.train(data, options.out, options.seed)
held_out, normal = air.predict(model, data.calibration.x), air.predict(model, data.test.x)
y = data.test.y

conformal = calibration.SplitConformal.fit(held_out, data.calibration.y, LEVEL)
regions = {
    "χ² ellipsoid, as predicted": normal.ellipsoid(LEVEL),
    "conformal ellipsoid": conformal.region(normal),
}
false_alarms = {name: ~region.contains(y) for name, region in regions.items()}
lower, upper = normal.interval(LEVEL, simultaneous="bonferroni")
false_alarms["six intervals (Bonferroni)"] = ((y < lower) | (y > upper)).any(axis=1)


def widest(normal: kmvn.MultivariateNormal, y: np.ndarray) -> np.ndarray:
    """Return the largest error of each row, in standard deviations."""
    return np.abs((y - normal.mean) / normal.stddev).max(axis=1)


# The same guarantee for intervals: the ⌈(n + 1) level⌉-th smallest of the largest errors.
errors = np.sort(widest(held_out, data.calibration.y))
limit = errors[int(np.ceil((len(errors) + 1) * LEVEL)) - 1]
false_alarms["six conformal intervals"] = widest(normal, y) > limit

print(f"\nfalse alarms on {len(y)} ordinary test days; promised: at most {100 * (1 - LEVEL):.0f} %")
error = 200 * np.sqrt(LEVEL * (1 - LEVEL) * (1 / len(y) + 1 / len(data.calibration.y)))
print(f"(sampling error of calibration and test rows: about ± {error:.1f} points)\n")
for name, alarms in false_alarms.items():
    print(f"  {name:30s}{100 * alarms.mean():6.1f} %")


def setting(x: np.ndarray) -> np.ndarray:
    """Return rural, suburban or urban: exactly one of three input columns is 1."""
    names = [name for name in data.inputs if name.startswith("Location.Setting_")]
    columns = x[:, [data.inputs.index(name) for name in names]]
    labels = np.array([name.removeprefix("Location.Setting_").split()[0].lower() for name in names])
    return labels[columns.argmax(axis=1)]


groups, test_groups = setting(data.calibration.x), setting(data.test.x)
by_group = calibration.MondrianConformal.fit(held_out, data.calibration.y, groups, LEVEL)
grouped = ~by_group.region(normal, test_groups).contains(y)
print("\nby setting:              rows   one radius   one radius for each setting")
for group in np.unique(test_groups):
    rows = test_groups == group
    one = 100 * false_alarms["conformal ellipsoid"][rows].mean()
    print(f"  {group:20s}{rows.sum():7d}{one:10.1f} %{100 * grouped[rows].mean():18.1f} %")

# A faulty sensor: off by SHIFT conditional standard deviations of NO2 given the other five.
no2 = data.targets.index("NO2")
others = {j: y[:, j] for j in range(y.shape[1]) if j != no2}
broken = y.copy()
broken[:, no2] += SHIFT * normal.condition(others).stddev[:, 0]
found = {name: ~region.contains(broken) for name, region in regions.items()}
found["six intervals (Bonferroni)"] = ((broken < lower) | (broken > upper)).any(axis=1)
found["six conformal intervals"] = widest(normal, broken) > limit
print(f"\nalarms when the NO2 sensor reads {SHIFT:g} conditional standard deviations too high:\n")
for name, alarms in found.items():
    print(f"  {name:30s}{100 * alarms.mean():6.1f} %")
volume = {name: np.median(region.log_volume) for name, region in regions.items()}
smaller = volume["conformal ellipsoid"] - volume["χ² ellipsoid, as predicted"]
print(f"\nvolume of the conformal region: {np.exp(smaller):.2f} times that of the predicted one")
