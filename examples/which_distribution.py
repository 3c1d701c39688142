"""Three answers to the same question: a normal, a Student's t, and a mixture.

Draws the picture of docs/which_distribution.md: the 90 % regions of distributions with the same
scale matrix, what one measurement teaches each of them, and a region in two pieces.

    python examples/which_distribution.py [which_distribution.png]
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from keras_mvn import Mixture, MultivariateNormal, MultivariateStudentT

NAMES = ["temperature", "pressure"]
SIGMA = np.array([[1.0, 0.7], [0.7, 1.0]])
NORMAL, T = "#1f6fb4", "#c4501b"

normal = MultivariateNormal([0.0, 0.0], covariance=SIGMA, target_names=NAMES)
t = MultivariateStudentT([0.0, 0.0], 3.0, scale_matrix=SIGMA, target_names=NAMES)
figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.0), layout="constrained")

# 1. A normal leaves out the rows far out, or gets too wide for all others.
y = t.sample(400, seed=4)
axes[0].plot(*y.T, ".", color="0.6", markersize=4)
wide = t.moments()  # the normal with the same covariance
for answer, color, label in ((wide, NORMAL, "normal"), (t, T, "Student's t, ν = 3")):
    inside = answer.region(0.9).contains(y).mean()
    told = f"{label}: log-likelihood {answer.log_prob(y).mean():.2f} per row"
    axes[0].plot(*answer.region(0.9).outline()[0], color=color, label=told)
    print(
        f"{label:20s} 90 % region holds {inside:.1%}, {answer.log_prob(y).mean():.3f} nats per row"
    )
axes[0].set(title="Errors with tails, and 90 % regions", xlim=(-9, 9), ylim=(-9, 10))

# 2. A measurement far out teaches a t that this row's errors are large; a normal learns nothing.
x = np.linspace(-6.0, 6.0, 121)
for answer, color, label in ((normal, NORMAL, "normal"), (t, T, "Student's t, ν = 3")):
    given = answer.broadcast_to((len(x),)).condition({"temperature": x})
    lower, upper = given.interval(0.9)
    axes[1].fill_between(x, lower[:, 0], upper[:, 0], color=color, alpha=0.2, linewidth=0)
    axes[1].plot(x, given.center[:, 0], color=color, label=label)
axes[1].set(title="Pressure, given a measured temperature", xlabel="temperature measured")

# 3. A mixture may have several modes: the smallest region of 90 % then has several pieces.
two = Mixture([normal * 0.6 - 1.5, t * 0.5 + [2.0, -1.0]], [0.6, 0.4])
axes[2].plot(*two.sample(400, seed=1).T, ".", color="0.6", markersize=4)
for outline in two.region(0.9).outline():
    axes[2].plot(*outline, color="#3a7d44")
axes[2].plot(*two.moments().region(0.9).outline()[0], color=NORMAL, linestyle="--",
             label="the normal of its moments")  # fmt: skip
axes[2].set(title="A mixture, and its smallest 90 % region", xlim=(-6, 6), ylim=(-5, 3))

for ax in axes[[0, 2]]:
    ax.set(xlabel=NAMES[0], ylabel=NAMES[1])
axes[1].set_ylabel("90 % interval of pressure")
for ax in axes:
    ax.legend(fontsize=8, loc="upper left")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "which_distribution.png", dpi=110)
