"""Will all six pollutants stay below their limits, on the same day?

The answer needs the joint distribution: pollutants rise together, so bad days are fewer but worse
than the product of six probabilities suggests.

    python examples/limits.py --data air.csv

prints how well both answers agree with the observations of the test rows.
"""

import itertools

import numpy as np

import air

LIMITS = {"PM2.5": 15.0, "NO2": 40.0, "O3": 0.050, "PM10": 45.0, "CO": 1.0, "SO2": 10.0}
"""Warning levels stricter than the law, each exceeded by about a fifth of the values."""

options = air.arguments(__doc__)
data = air.load(options.data, options.seed)
normal = air.predict(air.train(data, options.out, options.seed), data.test.x)

upper = np.array([LIMITS[name] for name in data.targets])
below = (data.test.y <= upper).all(axis=1)
joint, error = normal.probability(upper=upper, return_error=True, samples=1024)
product = normal.marginal_cdf(np.broadcast_to(upper, normal.mean.shape)).prod(axis=1)

print(f"\n{len(below)} test rows; all six below their limits on {100 * below.mean():.1f} % of them")
print(f"integration error: at most {error.max():.4f}\n")
print(f"{'':28s}{'mean':>8s}{'Brier score':>13s}{'log score':>12s}")
for name, p in (("joint", joint), ("product of six margins", product)):
    p = np.clip(p, 1e-4, 1 - 1e-4)
    brier = np.mean((p - below) ** 2)
    log_score = -np.mean(np.where(below, np.log(p), np.log1p(-p)))
    print(f"{name:28s}{p.mean():8.3f}{brier:13.4f}{log_score:12.4f}")

print("\nwhen the joint answer was ..., all limits were met on ... of the rows:")
edges = np.array([0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0])
for low, high in itertools.pairwise(edges):
    chosen = (joint >= low) & (joint < high + (high == 1.0))
    if chosen.any():
        print(
            f"  {100 * low:3.0f}-{100 * high:3.0f} %: {100 * below[chosen].mean():5.1f} % "
            f"of {chosen.sum():4d} rows   (mean answer {100 * joint[chosen].mean():.1f} %)"
        )
