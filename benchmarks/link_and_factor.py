"""Compare links for the scales and triangular factors: the measurement behind the defaults.

Every combination of link (exp, softplus, squareplus, two tail-bounded exponentials) and factor
(Cholesky or precision Cholesky, scale-separated or with raw off-diagonals) trains the same small
network on three problems with a known truth:

* ``known``: O'Malley et al. 2021, Table 1 (d = 2), KL(predicted || true) at N = 500, 1000, 5000;
* ``sine``: 0.4 sin(2 pi x + phi_j) with noise of 0.01, d = 4: is the mean learned?
* ``fan``: x sin(x + phi_j) with noise that grows with x, d = 4: excess NLL over the truth;

and ``collapse`` tests whether Adam brings a scale back to its true value, 1, from a raw output of
-30 or +30 (2000 steps; the final scale is reported).

The networks of all repetitions train side by side (``jax.vmap``), which is why this script is in
plain JAX; every variant is converted to (scale, N), the pair that the library uses in y_pred.

    python benchmarks/link_and_factor.py known --draws 20 --out benchmarks/results
    python benchmarks/link_and_factor.py sine fan collapse --draws 5 --out benchmarks/results
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np


# --- links: raw -> positive, link(0) = 1 -----------------------------------------------------
def tail_power(power: float) -> Callable:
    """exp(p asinh(x / p)): exponential around 0, x^p and x^-p in the tails."""
    return lambda x: jnp.exp(power * jnp.arcsinh(x / power))


def knee(width: float) -> Callable:
    """exp(x) for |x| <= width, then linear, and its reciprocal below."""

    def link(x):
        excess = jnp.maximum(jnp.abs(x) - width, 0.0)
        return jnp.exp(jnp.sign(x) * (jnp.minimum(jnp.abs(x), width) + jnp.log1p(excess)))

    return link


LINKS: dict[str, Callable] = {
    "exp": jnp.exp,
    "softplus": lambda x: jax.nn.softplus(x + 0.5413248546) + 1e-5,
    "squareplus": lambda x: jnp.exp(jnp.arcsinh(x / 2)),  # (x + sqrt(x^2 + 4)) / 2, slope 1/2
    "power 3": tail_power(3.0),
    "power 5": tail_power(5.0),
    "knee 2": knee(2.0),
    "knee 3": knee(3.0),
    "knee 5": knee(5.0),
}


# --- factors: (diagonal raw, off-diagonal raw, start) -> (scale, N) ----------------------------
def cholesky_separated(link, diagonal, lower, start):
    return start["scale"] * link(diagonal), start["n"] + lower


def cholesky_raw(link, diagonal, lower, start):
    scale = start["scale"] * link(diagonal)
    rows = jnp.tril_indices(scale.shape[-1], -1)[0]
    return scale, (start["scale"][rows] * start["n"] + lower) / scale[..., rows]


def precision_separated(link, diagonal, lower, start):
    return start["scale"] * link(diagonal), start["precision_n"] + lower


def precision_raw(link, diagonal, lower, start):
    scale = start["scale"] / link(diagonal)
    columns = jnp.tril_indices(scale.shape[-1], -1)[1]
    return scale, (start["precision_n"] / start["scale"][columns] + lower) * scale[..., columns]


FACTORS = {
    "Cholesky, S(I + N)": (False, cholesky_separated),
    "Cholesky, raw off-diagonals": (False, cholesky_raw),
    "precision, (I + N)/S": (True, precision_separated),
    "precision, raw factor": (True, precision_raw),
}


def unit_lower(n, d):
    """Return the dense I + N from its rows, packed one after another."""
    rows, columns = np.tril_indices(d, -1)
    return jnp.eye(d).at[rows, columns].set(n)


def covariance(precision, scale, n):
    a = unit_lower(n, scale.shape[-1])
    factor = jnp.linalg.inv(a) if precision else a
    factor = scale[:, None] * factor
    return factor @ factor.T


def nll(precision, y, mean, scale, n):
    u = (y - mean) / scale
    d = y.shape[-1]
    z = []
    for i in range(d):  # d is 2 or 4: unrolled
        start = i * (i - 1) // 2
        previous = u if precision else z
        z.append(
            u[i]
            + (1 if precision else -1) * sum((n[start + j] * previous[j] for j in range(i)), 0.0)
        )
    return 0.5 * sum(v**2 for v in z) + jnp.sum(jnp.log(scale)) + 0.5 * d * jnp.log(2 * jnp.pi)


# --- problems ---------------------------------------------------------------------------------
def known_truth(rng, n):
    x = rng.uniform(0, np.pi, n)
    mean = np.stack(
        [np.sin(2.5 * x) * np.sin(1.5 * x) + x, np.cos(3.5 * x) * np.cos(0.5 * x) - x**2], -1
    )
    v1 = 0.01 + 0.25 * (1 - np.sin(2.5 * x)) ** 2
    v2 = 0.01 + 0.25 * (1 - np.cos(3.5 * x)) ** 2
    c = np.sin(2.5 * x) * np.cos(0.5 * x) * np.sqrt(v1 * v2)
    return x[:, None], mean, np.stack([np.stack([v1, c], -1), np.stack([c, v2], -1)], -1)


PHASE = 0.7 * np.arange(4)
NOISE = 0.95 * np.array(
    [[1, 0.8, 0.5, 0], [0.8, 1, 0.6, 0.2], [0.5, 0.6, 1, -0.3], [0, 0.2, -0.3, 1]]
) + 0.05 * np.eye(4)


def sine(rng, n):
    x = rng.uniform(0, 3, (n, 1))
    return x, 0.4 * np.sin(2 * np.pi * x + PHASE), np.broadcast_to(0.01**2 * NOISE, (n, 4, 4))


def fan(rng, n):
    x = rng.uniform(0, 10, (n, 1))
    sigma = (0.1 + 0.3 * x) * np.array([0.5, 0.75, 1, 1.25])
    return x, x * np.sin(x + PHASE), sigma[:, :, None] * NOISE * sigma[:, None, :]


def draw(problem, rng, n):
    x, mean, cov = problem(rng, n)
    y = mean + (np.linalg.cholesky(cov) @ rng.normal(size=mean.shape)[..., None])[..., 0]
    return x, y, mean, cov


def start_from(y):
    """Return what ``adapt`` derives from standardized targets."""
    factor = np.linalg.cholesky(np.cov(y.T))
    scale = np.diag(factor)
    a = factor / scale[:, None]
    lower = np.tril_indices(len(scale), -1)
    return {"scale": scale, "n": a[lower], "precision_n": np.linalg.inv(a)[lower]}


# --- training -----------------------------------------------------------------------------------
def init(key, sizes, d):
    """Draw weights and biases from U(-1, 1)/sqrt(fan in); the covariance head starts small."""
    k = d * (d - 1) // 2
    sizes = [*sizes, 2 * d + k]
    parameters = []
    for a, b, key_ in zip(sizes, sizes[1:], jax.random.split(key, len(sizes) - 1), strict=False):
        w_key, b_key = jax.random.split(key_)
        limit = 1 / np.sqrt(a)
        w = jax.random.uniform(w_key, (a, b), minval=-limit, maxval=limit)
        parameters.append((w, jax.random.uniform(b_key, (b,), minval=-limit, maxval=limit)))
    w, b = parameters[-1]
    parameters[-1] = (w.at[:, d:].multiply(0.1), jnp.zeros_like(b))
    return parameters


def forward(parameters, activation, x):
    for w, b in parameters[:-1]:
        x = activation(x @ w + b)
    w, b = parameters[-1]
    return x @ w + b


def decode(factor, link, d, raw, start):
    scale, n = factor(link, raw[..., d : 2 * d], raw[..., 2 * d :], start)
    return raw[..., :d], scale, n


def train(loss_of, parameters, data, *, rate, batch, steps_per_epoch, epochs, patience):
    """Train by Adam; return the weights with the best validation loss (patience None: the last)."""

    def epoch_step(carry, key):
        parameters, m, v, step, best, best_loss, waited = carry
        order = jax.random.permutation(key, data["x"].shape[0])

        def step_fn(i, state):
            parameters, m, v, step = state
            rows = jax.lax.dynamic_slice_in_dim(order, i * batch, batch)
            grads = jax.grad(loss_of)(parameters, data["x"][rows], data["y"][rows], data["start"])
            step = step + 1
            m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
            v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)
            scale = rate * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            parameters = jax.tree.map(
                lambda p, a, b: p - scale * a / (jnp.sqrt(b) + 1e-7), parameters, m, v
            )
            return parameters, m, v, step

        trained = jax.lax.fori_loop(0, steps_per_epoch, step_fn, (parameters, m, v, step))
        if patience is None:
            return (*trained, trained[0], best_loss, waited), None
        done = waited >= patience
        parameters, m, v, step = jax.tree.map(
            lambda new, old: jnp.where(done, old, new), trained, (parameters, m, v, step)
        )
        value = loss_of(parameters, data["x_val"], data["y_val"], data["start"])
        better = ~done & (value < best_loss)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), parameters, best)
        best_loss = jnp.where(better, value, best_loss)
        return (parameters, m, v, step, best, best_loss, jnp.where(better, 0, waited + 1)), None

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    carry = (parameters, zeros, zeros, 0.0, parameters, jnp.inf, 0)
    (_, _, _, _, best, _, _), _ = jax.lax.scan(
        epoch_step, carry, jax.random.split(data["key"], epochs)
    )
    return best


def prepare(problem, seed, n, n_validation, n_test):
    rng = np.random.default_rng(seed)
    x, y, _, _ = draw(problem, rng, n)
    x_val, y_val, _, _ = draw(problem, rng, n_validation)
    x_test, y_test, mean, cov = draw(problem, rng, n_test)
    m, t = y.mean(0), y.std(0)
    mx, tx = x.mean(0), x.std(0)
    data = {
        "x": (x - mx) / tx, "y": (y - m) / t, "x_val": (x_val - mx) / tx, "y_val": (y_val - m) / t,
        "start": start_from((y - m) / t),
    }  # fmt: skip
    truth = {
        "x": (x_test - mx) / tx, "y": (y_test - m) / t, "mean": (mean - m) / t,
        "cov": cov / (t[:, None] * t[None, :]),
    }  # fmt: skip
    return data, truth


def kl(mean_p, cov_p, mean_q, cov_q):
    d = mean_p.shape[-1]
    inverse = np.linalg.inv(cov_q)
    r = mean_q - mean_p
    return 0.5 * (
        np.trace(inverse @ cov_p, axis1=-2, axis2=-1) - d
        + np.einsum("ni,nij,nj->n", r, inverse, r)
        + np.linalg.slogdet(cov_q)[1] - np.linalg.slogdet(cov_p)[1]
    )  # fmt: skip


def run(problem, factor_name, link_name, *, draws, n, settings):
    precision, factor = FACTORS[factor_name]
    link = LINKS[link_name]
    prepared = [prepare(problem, seed, n, 300, 1000) for seed in range(draws)]
    d = prepared[0][0]["y"].shape[-1]
    data = jax.tree.map(
        lambda *a: jnp.stack([jnp.asarray(v, jnp.float32) for v in a]), *[p[0] for p in prepared]
    )
    keys = jax.vmap(jax.random.PRNGKey)(jnp.arange(draws))
    data["key"] = keys
    activation = settings["activation"]

    def loss_of(parameters, x, y, start):
        mean, scale, n_ = decode(factor, link, d, forward(parameters, activation, x), start)
        return jnp.mean(jax.vmap(partial(nll, precision))(y, mean, scale, n_))

    @jax.jit
    @jax.vmap
    def fit(data):
        parameters = init(
            jax.random.fold_in(data["key"], 1), (data["x"].shape[-1], *settings["widths"]), d
        )
        return train(
            loss_of, parameters, data, rate=settings["rate"], batch=settings["batch"],
            steps_per_epoch=data["x"].shape[0] // settings["batch"], epochs=settings["epochs"],
            patience=settings["patience"],
        )  # fmt: skip

    fitted = fit(data)
    rows = []
    for i, (own, truth) in enumerate(prepared):
        parameters = jax.tree.map(lambda a, i=i: a[i], fitted)
        raw = forward(parameters, activation, jnp.asarray(truth["x"], jnp.float32))
        mean, scale, n_ = decode(factor, link, d, raw, own["start"])
        cov = np.asarray(jax.vmap(partial(covariance, precision))(scale, n_), np.float64)
        mean = np.asarray(mean, np.float64)
        r = truth["y"] - mean
        rows.append(
            {
                "kl": float(np.mean(kl(mean, cov, truth["mean"], truth["cov"]))),
                "rmse": float(np.sqrt(np.mean((mean - truth["mean"]) ** 2))),
                "excess": float(
                    np.mean(
                        gaussian_nll(r, cov)
                        - gaussian_nll(truth["y"] - truth["mean"], truth["cov"])
                    )
                ),
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def gaussian_nll(r, cov):
    return 0.5 * (
        np.einsum("ni,ni->n", r, np.linalg.solve(cov, r[..., None])[..., 0])
        + np.linalg.slogdet(cov)[1]
    )


KNOWN = {"activation": jax.nn.gelu, "widths": (50, 20), "rate": 0.01, "batch": 250, "patience": 50}
RUINED = {"activation": jnp.tanh, "widths": (64, 64), "rate": 1e-3, "batch": 250, "patience": None}
PROBLEMS = {
    "known": [
        (known_truth, n, KNOWN | {"epochs": e}) for n, e in ((500, 1000), (1000, 800), (5000, 300))
    ],
    "sine": [(sine, 1500, RUINED | {"epochs": 2500})],
    "fan": [(fan, 1500, RUINED | {"epochs": 834})],
}


def collapse(out):
    """Measure the scale after 2000 Adam steps on one raw number, from far away; y ~ N(0, 1)."""
    y = jax.random.normal(jax.random.PRNGKey(0), (256,))

    @partial(jax.jit, static_argnums=0)
    def recover(link, start, rate):
        def loss(raw):
            scale = link(raw)
            return jnp.mean(0.5 * (y / scale) ** 2) + jnp.log(scale)

        def step(i, state):
            raw, m, v = state
            g = jax.grad(loss)(raw)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            corrected = (m / (1 - 0.9 ** (i + 1.0))) / (
                jnp.sqrt(v / (1 - 0.999 ** (i + 1.0))) + 1e-7
            )
            return raw - rate * corrected, m, v

        return link(jax.lax.fori_loop(0, 2000, step, (start, 0.0, 0.0))[0])

    cases = list(itertools.product((-30.0, 30.0), (0.01, 0.03, 0.1)))
    header = [f"raw {start:+.0f}, rate {rate}" for start, rate in cases]
    lines = ["| link | " + " | ".join(header) + " |", "|" + " --- |" * (len(cases) + 1)]
    for name, link in LINKS.items():
        values = [f"{float(recover(link, start, rate)):.3g}" for start, rate in cases]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    print("\n".join(lines), flush=True)
    (out / "link_and_factor_collapse.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("problems", nargs="+", choices=[*PROBLEMS, "collapse"])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--links", nargs="+", default=list(LINKS))
    parser.add_argument("--factors", nargs="+", default=list(FACTORS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.problems:
        if name == "collapse":
            collapse(arguments.out)
            continue
        for problem, n, settings in PROBLEMS[name]:
            lines = [
                f"| {name}, N = {n} | link | KL median / mean (worst) "
                "| RMSE of the mean | excess NLL | s |",
                "| --- | --- | --- | --- | --- | --- |",
            ]
            print("\n".join(lines), flush=True)
            for factor_name, link_name in itertools.product(arguments.factors, arguments.links):
                began = time.perf_counter()
                r = run(
                    problem, factor_name, link_name, draws=arguments.draws, n=n, settings=settings
                )
                kl_, seconds = r["kl"], time.perf_counter() - began
                lines.append(
                    f"| {factor_name} | {link_name} "
                    f"| {np.median(kl_):.3f} / {np.mean(kl_):.3f} ({np.max(kl_):.3f}) "
                    f"| {np.median(r['rmse']):.3f} | {np.median(r['excess']):+.3f} "
                    f"| {seconds:.0f} |"
                )
                print(lines[-1], flush=True)
            (arguments.out / f"link_and_factor_{name}_{n}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
