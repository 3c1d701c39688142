"""Compare all losses of the library on two problems with known truth and two real tables.

* sine, fan: the problems of link_and_factor.py, d = 4 (2 × 64 tanh, 1500 rows, batches of 250,
  Adam 1e-3, 5 seeds, 15 000 and 5000 steps): is the mean learned, how good is the likelihood?
* air: US EPA air quality, 15 inputs → 6 pollutants, 2000 training rows.
* energy: UCI 242, 8 inputs → heating and cooling load, 460 training rows.

On the tables: 2 × 64 gelu, Adam 1e-3, 10 random splits; every method sees the same splits in the
same order, starts from the same weights and keeps the weights that do best on the validation rows
by its own loss. All runs of one method train side by side (`jax.vmap`), with the library's head,
losses and metrics inside. Each run is evaluated twice: with its weights, and with their exponential
moving average (0.99 per step: `Adam(use_ema=True, ema_momentum=0.99)`).

    KERAS_BACKEND=jax python benchmarks/losses.py --data ../shared/data --raw /tmp/losses

takes about 25 CPU minutes. Finished runs are kept in --raw, one file per problem and method, and
are not trained again. Several processes can share the work with --problems and --methods; a last
run without either writes the report.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import ops

import keras_mvn as kmvn
import link_and_factor
from keras_mvn import covariances, losses, metrics
from tables import air, as_float32, divide, energy

LEARNING_RATE = 1e-3
MOMENTUM = 0.99
FIRST_SEED = 100


# --- methods ------------------------------------------------------------------------------------
@final
class SquaredError(losses.UnitFreeLoss):
    """The loss ½ Σ ((y − μ)/t)² of the comparison network without a covariance."""

    def row_loss(self, targets, parameters):
        u = (targets.values - parameters.mean) / targets.unit
        return 0.5 * ops.sum(u * u, axis=-1)


@dataclass(frozen=True)
class Method:
    """A loss, its head's structure and options, and how long only the mean is trained."""

    loss: Callable[..., losses.CovarianceLoss]
    covariance: str = "cholesky"
    head: dict[str, Any] = field(default_factory=dict)
    warm_up: float = 0.0
    sine_steps: int = 15000

    @property
    def layout(self):
        return "student_t" if self.head.get("learn_degrees_of_freedom") else "packed"


NLL, BALANCED = "NLL", "Balanced (default)"
SQUARED, RESIDUALS = "squared error", "squared error, constant Σ of its residuals"
METHODS = {
    BALANCED: Method(losses.BalancedNegativeLogLikelihood),
    "Balanced, precision": Method(losses.BalancedNegativeLogLikelihood, "precision_cholesky"),
    NLL: Method(losses.NegativeLogLikelihood),
    "NLL, precision": Method(losses.NegativeLogLikelihood, "precision_cholesky"),
    "NLL, diagonal": Method(losses.NegativeLogLikelihood, "diagonal"),
    "NLL, mean first (25 %)": Method(losses.NegativeLogLikelihood, warm_up=0.25),
    "β-NLL, 0.5": Method(losses.BetaNegativeLogLikelihood),
    "faithful": Method(losses.FaithfulNegativeLogLikelihood),
    "faithful, trunk stopped": Method(
        losses.FaithfulNegativeLogLikelihood, head={"stop_trunk": True}
    ),
    "natural gradient": Method(losses.NaturalGradientNegativeLogLikelihood),
    "Student's t, ν learned": Method(
        partial(losses.StudentT, "learned"), head={"learn_degrees_of_freedom": True}
    ),
    "energy score": Method(losses.EnergyScore),
    "CRPS, diagonal": Method(losses.CRPS, "diagonal"),
    "variogram score": Method(losses.VariogramScore, sine_steps=5000),
    SQUARED: Method(SquaredError, head={"constant": "covariance"}),
}


# --- problems -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    """Training, validation and test (x, y) from `parts(seed)`, and how to train on them."""

    parts: Callable[[Path, int], list]
    runs: int
    batch: int
    activation: str
    steps: int
    early_stopping: bool


def simulated(problem, _, seed):
    known, truth = link_and_factor.prepare(problem, seed, 1500, 300, 1000)
    pairs = (known["x"], known["y"]), (known["x_val"], known["y_val"]), (truth["x"], truth["y"])
    return as_float32(pairs)


def tabular(load, sizes, data, seed):
    """Split at random, with inputs standardized by the training rows."""
    x, y = load(data)
    order = np.random.default_rng(seed).permutation(len(x))
    return divide(x, y, np.split(order, np.cumsum(sizes))[:3])


PROBLEMS = {
    "sine": Problem(partial(simulated, link_and_factor.sine), 5, 250, "tanh", 15000, False),
    "fan": Problem(partial(simulated, link_and_factor.fan), 5, 250, "tanh", 5000, False),
    "air": Problem(partial(tabular, air, (2000, 1000, 2000)), 10, 200, "gelu", 1500, True),
    "energy": Problem(partial(tabular, energy, (460, 154, 154)), 10, 115, "gelu", 4000, True),
}


# --- training -----------------------------------------------------------------------------------
def network(method, activation, train, seed):
    keras.utils.set_random_seed(seed)
    x, y = train
    head = kmvn.layers.MultivariateNormalHead(y.shape[1], method.covariance, **method.head)
    head.adapt(y)
    hidden = [keras.layers.Dense(64, activation) for _ in range(2)]
    model = keras.Sequential([keras.Input((x.shape[1],)), *hidden, head])
    if method.warm_up:
        for variable in covariance_weights(model):
            variable.assign(np.zeros(variable.shape))
    return model


def covariance_weights(model):
    head = model.layers[-1]
    mean = {id(variable) for variable in head.mean_dense.variables}
    return [v for v in head.trainable_variables if id(v) not in mean]


def value(model, loss, weights, fixed, part):
    """Return the loss of a model with these weights; `fixed` includes the head's units of y."""
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    mapping = list(zip(variables, [*weights, *fixed], strict=True))
    with keras.StatelessScope(state_mapping=mapping):
        return loss(part[1], model(part[0], training=True))


def adam(weights, gradients, moments, step):
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradients)
    rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    moved = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second
    )
    return moved, (first, second)


def start(weights):
    """Return weights, their average, the optimizer's moments, steps done, and the best two."""
    zeros = jax.tree.map(jnp.zeros_like, weights)
    both = (weights, weights)
    infinite = jnp.full(2, jnp.inf)
    return {
        "both": both, "moments": (zeros, zeros), "step": 0.0,
        "best": both, "lowest": infinite, "best_step": jnp.zeros(2),
    }  # fmt: skip


def train(model, method, problem, epochs, total, state, fixed, parts, keys):
    """Continue one run by `epochs` epochs from `state`; `total` steps are planned."""
    rows, validation = parts[:2]
    loss = method.loss(covariance=method.covariance)
    late = {id(variable) for variable in covariance_weights(model)}
    held = [id(variable) in late for variable in model.trainable_variables]
    per_epoch = len(rows[0]) // problem.batch

    def step(state, chosen):
        weights, average = state["both"]
        batch = rows[0][chosen], rows[1][chosen]
        gradients = jax.grad(lambda w: value(model, loss, w, fixed, batch))(weights)
        count = state["step"] + 1.0
        moved, moments = adam(weights, gradients, state["moments"], count)
        if method.warm_up:
            free = count > method.warm_up * total
            moved = [
                jnp.where(free, new, old) if hold else new
                for new, old, hold in zip(moved, weights, held, strict=True)
            ]
        average = jax.tree.map(lambda a, w: MOMENTUM * a + (1 - MOMENTUM) * w, average, moved)
        return {**state, "both": (moved, average), "moments": moments, "step": count}, None

    def epoch(state, key):
        order = jax.random.permutation(key, len(rows[0]))[: per_epoch * problem.batch]
        state, _ = jax.lax.scan(step, state, order.reshape(per_epoch, problem.batch))
        if not problem.early_stopping:
            return {**state, "best": state["both"]}, None
        # Both at once: two concurrent triangular solves of many rows deadlock XLA's CPU threads.
        found = jax.vmap(lambda w: value(model, loss, w, fixed, validation))(stack(state["both"]))
        # Before the mean-only phase is over, a validation loss says nothing about the covariance.
        ready = state["step"] > method.warm_up * total
        better = [ready & (new < old) for new, old in zip(found, state["lowest"], strict=True)]
        best = tuple(
            jax.tree.map(lambda w, b, better=better_: jnp.where(better, w, b), weights, old)
            for better_, weights, old in zip(better, state["both"], state["best"], strict=True)
        )
        better = jnp.stack(better)
        return {
            **state, "best": best,
            "lowest": jnp.where(better, found, state["lowest"]),
            "best_step": jnp.where(better, state["step"], state["best_step"]),
        }, None  # fmt: skip

    return jax.lax.scan(epoch, state, keys)[0]


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def run(method, problem, splits, steps, every):
    """Train; yield (steps so far, state, y_pred of weights and average) every `every` steps."""
    seeds = range(FIRST_SEED, FIRST_SEED + len(splits))
    models = [
        network(method, problem.activation, parts[0], seed)
        for parts, seed in zip(splits, seeds, strict=True)
    ]
    model = models[0]
    state = stack([start([v.value for v in m.trainable_variables]) for m in models])
    fixed = stack([[v.value for v in m.non_trainable_variables] for m in models])
    parts = stack(splits)
    per_epoch = splits[0][0][0].shape[0] // problem.batch
    epochs = -(-every // per_epoch)
    one = jax.jit(jax.vmap(partial(train, model, method, problem, epochs, steps)))

    def predict(weights, fixed, x):
        return model.stateless_call(weights, fixed, x)[0]

    for stretch in range(-(-steps // every)):
        keys = jnp.stack(
            [
                jax.random.split(jax.random.fold_in(jax.random.key(s), stretch), epochs)
                for s in seeds
            ]
        )
        state = one(state, fixed, parts, keys)
        y_pred = [
            [np.asarray(jax.jit(jax.vmap(predict))(weights, fixed, part[0])) for part in parts[1:]]
            for weights in state["best"]
        ]
        yield (stretch + 1) * every, state, y_pred


# --- scores -------------------------------------------------------------------------------------
def scores(covariance, layout, y, y_pred, unit):
    """Return the scores of one test set, per target except for energy and variogram."""
    d = y.shape[1]
    reading = {"covariance": covariance, "layout": layout}
    coverage = metrics.Coverage(0.9, **reading)
    coverage.update_state(y, y_pred)
    likelihood = losses.NegativeLogLikelihood(**reading)
    own = losses.StudentT("learned", covariance) if layout == "student_t" else likelihood
    found = {
        "nll": own(y, y_pred) / d,
        "normal_nll": likelihood(y, y_pred) / d,
        "rmse": np.sqrt(np.mean(((y - y_pred[:, :d]) / unit) ** 2)),
        "crps": losses.CRPS(target_scale=unit, **reading)(y, y_pred) / d,
        "energy": losses.EnergyScore(target_scale=unit, **reading)(y, y_pred),
        "variogram": losses.VariogramScore(target_scale=unit, **reading)(y, y_pred),
        "coverage": coverage.result(),
    }
    return {name: float(score) for name, score in found.items()}


def constant(moments_of, mean, structure="cholesky"):
    """Return y_pred with these means (rows, d) and the covariance of `moments_of` (rows, d)."""
    scale, shape = covariances.get(structure).from_covariance(np.cov(moments_of.T))
    one = np.ones((len(mean), 1))
    return np.concatenate([mean, one * scale, one * shape], axis=1).astype("float32")


def study_table(method, problem, splits):
    """Score every split, with the weights and their average, and the two baselines."""
    ((_, state, both),) = run(method, problem, splits, problem.steps, problem.steps)
    found = {"weights": [], "average": []}
    if method.loss is SquaredError:
        found |= {"residuals": [], "residuals average": [], "rows": []}
    for i, parts in enumerate(splits):
        (_, y), (_, y_val), (_, y_test) = parts
        score = partial(scores, y=y_test, unit=y.std(axis=0, dtype=np.float64))
        for j, name in enumerate(("weights", "average")):
            validation, test = both[j][0][i], both[j][1][i]
            line = score(method.covariance, method.layout, y_pred=test)
            found[name].append(line | {"step": float(state["best_step"][i, j])})
            if method.loss is SquaredError:
                d = y.shape[1]
                y_pred = constant(y_val - validation[:, :d], test[:, :d])
                key = "residuals" + " average" * j
                found[key].append(score("cholesky", "packed", y_pred=y_pred))
        if method.loss is SquaredError:
            mean = np.broadcast_to(y.mean(axis=0), y_test.shape)
            found["rows"].append(score("cholesky", "packed", y_pred=constant(y, mean)))
    return found


def study_truth(name, method, problem, seeds):
    """Return {steps: {which: [(RMSE of the mean against the truth, excess NLL)]}}."""
    source = getattr(link_and_factor, name)
    splits = [problem.parts(Path(), seed) for seed in seeds]
    truths = [link_and_factor.prepare(source, seed, 1500, 300, 1000)[1] for seed in seeds]
    steps = min(problem.steps, method.sine_steps) if name == "sine" else problem.steps
    loss = losses.NegativeLogLikelihood(method.covariance, layout=method.layout)
    if method.layout == "student_t":
        loss = losses.StudentT("learned", method.covariance)
    found = {}
    for done, _, both in run(method, problem, splits, steps, 5000):
        found[done] = {}
        for which, y_pred in zip(("weights", "average"), both, strict=True):
            found[done][which] = [
                against_truth(loss, truth, y_pred[1][i]) for i, truth in enumerate(truths)
            ]
    return found


def against_truth(loss, truth, y_pred):
    y, mean, cov = truth["y"], truth["mean"], truth["cov"]
    d = y.shape[1]
    z = np.linalg.solve(np.linalg.cholesky(cov), (y - mean)[..., None])[..., 0]
    half_log_det = 0.5 * np.linalg.slogdet(cov)[1] + 0.5 * d * np.log(2 * np.pi)
    own = np.mean(0.5 * (z**2).sum(axis=1) + half_log_det)
    rmse = np.sqrt(np.mean((y_pred[:, :d] - mean) ** 2))
    return float(rmse), float(loss(y.astype("float32"), y_pred)) - own


def study(problem_name, method_name, data, raw):
    """Return the results file of a problem and a method; compute it if missing."""
    path = raw / f"{problem_name}, {method_name}.json"
    if path.exists():
        return
    began = time.perf_counter(), time.process_time()
    problem, method = PROBLEMS[problem_name], METHODS[method_name]
    seeds = range(FIRST_SEED, FIRST_SEED + problem.runs)
    if problem.early_stopping:
        found = study_table(method, problem, [problem.parts(data, seed) for seed in seeds])
    else:
        found = study_truth(problem_name, method, problem, seeds)
    seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    path.write_text(json.dumps({"found": found, "seconds": seconds[1]}))
    print(f"{path.stem}: {seconds[0]:.0f} s, {seconds[1]:.0f} s of CPU", flush=True)


# --- the report ---------------------------------------------------------------------------------
def table(header, rows, judges):
    """Format Markdown; `rows` hold a label, then (text, number); the best of a column is bold.

    `judges` map a column's numbers to values whose smallest is the best; None: no best.
    """
    columns = list(zip(*[cells for _, cells in rows], strict=True))
    best = [
        min((round(judge(n), 9) for _, n in column if n is not None), default=None)
        if judge
        else None
        for judge, column in zip(judges, columns, strict=True)
    ]
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for label, cells in rows:
        texts = [
            f"**{text}**" if judge and n is not None and round(judge(n), 9) == top else text
            for (text, n), judge, top in zip(cells, judges, best, strict=True)
        ]
        yield "| " + " | ".join([label, *texts]) + " |"


def itself(number):
    return number


def rounded(number, digits, sign=""):
    return f"{number:{sign}.{digits}f}", round(float(number), digits)


def rmse_and_excess(pairs):
    """Format two cells: median (worst) of the RMSE, and of the excess NLL."""
    if pairs is None:
        return [("", None), ("", None)]
    rmse, excess = np.array(pairs).T
    cells = (rmse, 4, ""), (excess, 3, "+")
    return [
        (f"{np.median(v):{s}.{k}f} ({v.max():{s}.{k}f})", round(float(np.median(v)), k))
        for v, k, s in cells
    ]


def truth_lines(name, found):
    """Format the table of one problem with known truth."""
    reached = [("5000", "weights"), ("15000", "weights"), ("15000", "average")]
    if name == "fan":
        reached = [("5000", "weights"), ("5000", "average")]
    rows = [
        (method, [c for s, which in reached for c in rmse_and_excess(runs.get(s, {}).get(which))])
        for method, runs in found.items()
    ]
    twin = dict(rows)[SQUARED]
    twin[1::2] = [("", None)] * len(reached)  # it has no likelihood
    header = ["loss"]
    for steps, which in reached:
        title = f"{steps} steps" + (", averaged weights" if which == "average" else "")
        header += [f"RMSE, {title}", "excess NLL"]
    yield f"\n## {name}\n"
    yield from table(header, rows, [itself] * (len(header) - 1))


def table_lines(name, found):
    """Format the table of one real data set."""
    twin = found.pop(SQUARED)
    named = {method: (runs["average"], runs["weights"]) for method, runs in found.items()}
    named[RESIDUALS] = twin["residuals average"], twin["residuals"]
    named["none: mean and Σ of the training rows"] = twin["rows"], twin["rows"]
    rmse = [np.array([run["rmse"] for run in twin[which]]) for which in ("average", "weights")]
    judged = named[BALANCED][0]
    rows = [(method, cells_of(runs, rmse, judged, twin["rows"])) for method, runs in named.items()]
    yield f"\n## {name}\n"
    yield (
        f"RMSE of the squared-error twin: {np.median(rmse[0]):.4f} standard deviations of y "
        f"({np.median(rmse[1]):.4f} without averaging).\n"
    )
    header = [
        "loss", "NLL: median", "mean", "lower than the default's", "RMSE ÷ twin's", "CRPS",
        "energy score", "variogram score", "in the 90 % ellipsoid", "failed", "best step",
        "not averaged: NLL", "RMSE ÷ twin's",
    ]  # fmt: skip
    judges = [itself, itself, None, *[itself] * 4, lambda n: abs(n - 0.9), None, None, itself,
              itself]  # fmt: skip
    yield from table(header, rows, judges)
    student = [m for m in named if m.startswith("Student")]
    for method in student:
        normal = np.median([run["normal_nll"] for run in named[method][0]])
        yield f"\nStudent's t by its own density; read as a normal distribution {normal:.3f}."


def cells_of(runs, twin_rmse, default, rows_alone):
    average, weights = runs

    def column(name, of=average):
        return np.array([run[name] for run in of])

    def median(name, digits):
        return rounded(np.median(column(name)), digits)

    nll = column("nll")
    lower = int((nll < np.array([run["nll"] for run in default])).sum())
    compared = "" if average is default else f"{lower} of {len(nll)}"
    worst = np.array([run["nll"] for run in rows_alone])
    failed = [int((~(column("nll", of) <= worst)).sum()) for of in runs]
    steps = f"{np.median(column('step')):.0f}" if "step" in average[0] else ""
    return [
        rounded(np.median(nll), 3),
        rounded(np.mean(nll), 3),
        (compared, None),
        rounded(np.median(column("rmse") / twin_rmse[0]), 3),
        median("crps", 4),
        median("energy", 4),
        median("variogram", 4),
        median("coverage", 3),
        (str(max(failed)), None),
        (steps, None),
        rounded(np.median(column("nll", weights)), 3),
        rounded(np.median(column("rmse", weights) / twin_rmse[1]), 3),
    ]


def summary_lines(files):
    """Format one line per loss: the averaged weights on every problem, medians."""
    truths = [name for name in ("sine", "fan") if name in files]
    tables = [name for name in ("air", "energy") if name in files]
    header = ["loss"]
    for name in truths:
        header += [f"{name}: RMSE", "excess NLL"]
    for name in tables:
        header += [f"{name}: NLL", "RMSE", "energy score"]
    rows = []
    for method in [*METHODS, RESIDUALS]:
        cells = []
        for name in truths:
            runs = files[name].get(method, {})
            final = runs[max(runs, key=int)]["average"] if runs else None
            short = runs and int(max(runs, key=int)) < PROBLEMS[name].steps
            pair = (("", None), ("", None))
            if final is not None and not short:
                rmse, excess = np.median(np.array(final), axis=0)
                pair = rounded(rmse, 4), rounded(excess, 3, "+")
            cells += [pair[0], ("", None) if method == SQUARED else pair[1]]
        for name in tables:
            runs = files[name].get(SQUARED if method == RESIDUALS else method, {})
            final = runs.get("residuals average" if method == RESIDUALS else "average")
            cells += [
                rounded(np.median([run[score] for run in final]), digits)
                if final and method != SQUARED
                else ("", None)
                for score, digits in (("nll", 3), ("rmse", 4), ("energy", 4))
            ]
        rows.append((method, cells))
    yield "\n## Summary: averaged weights, medians\n"
    yield from table(header, rows, [itself] * (len(header) - 1))


INTRODUCTION = """\
Bold is the best of a column. Made by benchmarks/losses.py in {minutes:.0f} CPU minutes.

* sine, fan: {truths} seeds, median (worst). RMSE of the mean against the noise-free truth in
  standard deviations of y; NLL in nats per row above the truth's own, on the same test rows.
  Empty: not run for 15 000 steps. "mean first" is `MeanWarmUp(fraction=0.25)`: on sine the mean
  leads for 3750 steps.
* air, energy: {tables} splits, medians unless said otherwise, averaged weights but for the last
  two columns. NLL in nats per target in the units of y; RMSE against a twin trained on squared
  errors, split by split; CRPS per target, energy and variogram score (p = 0.5) in standard
  deviations of the training targets; failed: not finite, or an NLL above that of the mean and
  covariance of the training rows. The constant Σ is that of the validation residuals.
"""


def report(raw):
    """Return the text of results/losses.md, from the finished runs."""
    files = {}
    seconds = 0.0
    for problem in PROBLEMS:
        for method in METHODS:
            path = raw / f"{problem}, {method}.json"
            if path.exists():
                content = json.loads(path.read_text())
                files.setdefault(problem, {})[method] = content["found"]
                seconds += content["seconds"]
    lines = [
        INTRODUCTION.format(
            minutes=seconds / 60, truths=PROBLEMS["sine"].runs, tables=PROBLEMS["air"].runs
        )
    ]
    lines.extend(summary_lines(files))
    for problem, found in files.items():
        if not {BALANCED, SQUARED} <= found.keys():
            continue
        of_problem = table_lines if PROBLEMS[problem].early_stopping else truth_lines
        lines.extend(of_problem(problem, found))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/losses.md"))
    arguments = parser.parse_args()
    arguments.raw.mkdir(parents=True, exist_ok=True)
    for problem in arguments.problems:
        for method in arguments.methods:
            study(problem, method, arguments.data, arguments.raw)
    text = report(arguments.raw)
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
