"""Draw the picture of the first page, for light and for dark pages: idea-light.svg, idea-dark.svg.

python docs/images/idea.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from keras_mvn import MultivariateNormal

NOON, CAME = 13.0, 12.2
"""Measured at noon, and what the evening brought; °C."""

morning = MultivariateNormal(
    [10.0, 9.0], covariance=[[3.6, 3.3], [3.3, 5.3]], target_names=["noon", "evening"]
)
evening, later = morning.marginal("evening"), morning.condition({"noon": NOON})


def draw(path, ink, blue, orange, paper):
    settings = {
        "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink, "xtick.color": ink,
        "ytick.color": ink, "font.size": 11, "svg.fonttype": "path", "svg.hashsalt": "idea",
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(9.6, 4.2), width_ratios=[3, 2], sharey=True, layout="constrained"
        )
        dots = {"color": ink, "alpha": 0.22, "markersize": 5, "markeredgewidth": 0}
        left.plot(*morning.sample(300, seed=2).T, ".", **dots)
        low, high = morning.interval(0.9)
        corners = np.array([[low[0], low[1]], [high[0], low[1]], high, [low[0], high[1]], low])
        left.plot(*corners.T, "--", color=ink, linewidth=1, alpha=0.8)
        left.text(low[0] - 0.1, high[1] + 0.15, "two intervals", color=ink, fontsize=10)
        outline = morning.region(0.9).outline()[0]
        left.fill(*outline, color=blue, alpha=0.18, linewidth=0)
        left.plot(*outline, color=blue, linewidth=2)
        left.text(8.9, 3.2, "one joint prediction:\n90 % region", color=blue, fontsize=11)
        left.axvline(NOON, color=orange, linewidth=1.6)
        left.text(NOON + 0.12, 3.3, "noon is measured", color=orange, fontsize=11)
        (bottom,), (top,) = later.interval(0.9)
        left.plot([NOON, NOON], [bottom, top], color=orange, linewidth=6, solid_capstyle="butt")
        left.plot(NOON, CAME, "o", color=ink, markersize=8, markeredgecolor=paper)
        left.set(xlim=(4, 16.6), ylim=(2.5, 16))
        left.set(xlabel="temperature at noon (°C)", ylabel="temperature in the evening (°C)")

        t = np.linspace(2.5, 16, 300)
        for one, color, label, at in (
            (evening, blue, "in the morning", 6.0), (later, orange, "knowing noon", 13.7)
        ):  # fmt: skip
            density = norm.pdf(t, one.mean[0], one.stddev[0])
            right.fill_betweenx(t, density, color=color, alpha=0.18, linewidth=0)
            right.plot(density, t, color=color, linewidth=2)
            beside = norm.pdf(at, one.mean[0], one.stddev[0]) + 0.025
            right.text(beside, at, label, color=color, fontsize=11)
        ring = {"markersize": 8, "markeredgecolor": paper, "clip_on": False, "zorder": 5}
        right.plot(0, CAME, "o", color=ink, **ring)
        right.text(0.012, CAME, "what came", color=ink, fontsize=10, va="center")
        right.set(xlabel="density of the evening's temperature", xticks=[], xlim=(0, 0.36))
        figure.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(figure)


here = Path(__file__).parent
draw(here / "idea-light.svg", "#20242c", "#1f6fb4", "#c4501b", "#ffffff")
draw(here / "idea-dark.svg", "#dfe3ea", "#6db3ee", "#f59a63", "#14181e")
