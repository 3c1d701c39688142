"""Two pollutants were measured: what are the other four?

A small station measures only NO2 and PM2.5. A joint prediction can be conditioned on these two
values: the predictions of the other four shift and become sharper. A network that predicts each
pollutant separately gains nothing from them.

    python examples/condition_on_measured.py --data air.csv

trains both networks (once), and writes `condition_on_measured.png`.
"""

import numpy as np
from matplotlib.figure import Figure

import air
from keras_mvn import plots

MEASURED = ("NO2", "PM2.5")

options = air.arguments(__doc__)
data = air.load(options.data, options.seed)
joint = air.predict(air.train(data, options.out, options.seed), data.test.x)
separate = air.predict(air.train(data, options.out, options.seed, "diagonal"), data.test.x)

y = data.test.y
values = {name: y[:, data.targets.index(name)] for name in MEASURED}
others = [name for name in data.targets if name not in MEASURED]
truth = y[:, [data.targets.index(name) for name in others]]
forecasts = {
    "each pollutant alone": separate.marginal(others),
    "joint, nothing measured": joint.marginal(others),
    f"joint, given {' and '.join(MEASURED)}": joint.condition(values),
}

print(f"\n{', '.join(others)} of {len(y)} test rows; medians of the standard deviations\n")
print(f"{'':28s}{'NLL per target':>15s}" + "".join(f"{f'sd {name}':>12s}" for name in others))
for name, normal in forecasts.items():
    nll = -normal.log_prob(truth).mean() / len(others)
    spread = "".join(f"{np.median(s):12.4g}" for s in normal.stddev.T)
    print(f"{name:28s}{nll:15.3f}{spread}")

first, *_, last = forecasts.values()
gain = (last.log_prob(truth) - first.log_prob(truth)) / len(others)
error = gain.std(ddof=1) / np.sqrt(len(gain))
print(f"\ngain from the two measurements: {gain.mean():.3f} ± {2 * error:.3f} nats per target")

surprise = np.abs(joint.whiten(y)).max(axis=1)
row = int(np.argsort(surprise)[len(y) * 9 // 10])  # an unusual day, but not an extreme one
figure = Figure(figsize=(11, 5), layout="constrained")
left, right = figure.subplots(1, 2)
given = {name: column[row] for name, column in values.items()}
plots.conditioning(left, joint[row], given, ("PM10", "CO"), y=y[row])
plots.conditioning(right, joint[row], given, ("O3", "CO"), y=y[row])
figure.suptitle("One test row: 90 % ellipses before and after two pollutants were measured")
path = options.out / "condition_on_measured.png"
figure.savefig(path, dpi=120)
print(f"wrote {path}")
