"""How the files in this folder were made, by keras-mvn 0.1.0 before its modules were moved.

They are the promise that such files load: nothing here is made anew. The script is kept to say
what is in them; it runs at commit 8716dd0 only.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import keras_mvn as kmvn
from keras_mvn import covariances as cov
from keras_mvn import losses, metrics, regularizers

HERE = Path(__file__).parent
D = 4
rng = np.random.default_rng(0)
X = rng.normal(size=(24, 3)).astype("float32")
NOISE = rng.normal(size=(24, D)) @ np.array(
    [[1.0, 0.4, 0.2, 0.0], [0, 1, 0.3, -0.5], [0, 0, 1, 0.2], [0, 0, 0, 1]]
)
Y = ((X @ rng.normal(size=(3, D)) + NOISE) * [1.0, 10.0, 0.1, 100.0] + [0, 5, 1, 1000]).astype(
    "float32"
)
GAPS = Y.copy()
GAPS[::5, 1] = np.nan
GAPS[::7, 3] = np.nan


def compiled():
    """One of every structure: head options, a loss and metrics, all off their defaults."""
    gaps = {"missing": "marginalize"}
    pairs = [([0, 2], "cholesky"), ([3, 1], "precision_cholesky")]
    return {
        "isotropic": (
            cov.Isotropic(),
            {},
            losses.CRPS(target_scale=[1.0, 10.0, 0.1, 100.0], **gaps),
        ),
        "diagonal": (
            cov.Diagonal(),
            {"use_bias": False, "kernel_regularizer": "l2"},
            losses.BetaNegativeLogLikelihood(beta=0.7, **gaps),
        ),
        "cholesky": (
            cov.Cholesky(),
            {"shrinkage": 0.3, "target_names": list("abcd")},
            losses.NegativeLogLikelihood(
                regularizer=regularizers.Shrinkage.from_targets(Y, 0.1), fused=False, **gaps
            ),
        ),
        "precision_cholesky": (
            cov.PrecisionCholesky(),
            {"stop_trunk": True},
            losses.BalancedNegativeLogLikelihood(
                regularizer=regularizers.CovarianceL1(0.2), **gaps
            ),
        ),
        "symmetric": (
            cov.Symmetric(),
            {"constant": "covariance"},
            losses.EnergyScore(target_scale=[1.0, 10.0, 0.1, 100.0], **gaps),
        ),
        "correlation": (
            cov.Correlation(),
            {"constant": "shape"},
            losses.VariogramScore(p=1.2, target_scale=[1.0, 10.0, 0.1, 100.0], **gaps),
        ),
        "low_rank": (
            cov.LowRank(2),
            {"shrinkage": None},
            losses.FaithfulNegativeLogLikelihood(
                regularizer=regularizers.LogVolume(-0.2, units=[1.0, 10.0, 0.1, 100.0]), **gaps
            ),
        ),
        "banded": (
            cov.Banded(1),
            {"learn_degrees_of_freedom": True},
            losses.StudentT("learned", **gaps),
        ),
        "block_diagonal": (
            cov.BlockDiagonal(pairs),
            {},
            losses.NaturalGradientNegativeLogLikelihood(
                regularizer=regularizers.InverseWishart(10.0, np.eye(4), 24), **gaps
            ),
        ),
        "kronecker": (
            cov.Kronecker((2, 2)),
            {"covariance_kernel_initializer": "he_normal"},
            losses.StudentT(7.0, regularizer=regularizers.LKJ(2.0, 24), **gaps),
        ),
    }


def with_structure(loss, structure):
    """The same loss, told the structure, as a user writes it."""
    config = loss.get_config()
    config["covariance"] = keras.saving.serialize_keras_object(structure)
    return type(loss).from_config(config)


def network(structure, options, loss, seed):
    keras.utils.set_random_seed(seed)
    head = kmvn.layers.MultivariateNormalHead(D, structure, **options)
    head.adapt(Y)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "gelu"), head])
    layout = {"layout": "student_t"} if head.learn_degrees_of_freedom else {}
    said = {"covariance": structure, "missing": "marginalize", **layout}
    model.compile(
        keras.optimizers.SGD(1e-3),
        loss=with_structure(loss, structure),
        metrics=[
            metrics.Coverage(0.8, **said),
            metrics.CoverageError(0.8, **said),
            metrics.NegativeLogLikelihood(name="nll", **said),
            metrics.RootMeanSquaredError(**said),
            metrics.MeanLogScale(**said),
        ],
    )
    # Weights that depend on x, whatever the initializers.
    generator = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(np.asarray(weight) + generator.normal(0, 0.2, weight.shape))
    return model


def evaluated(model):
    found = model.evaluate(X, GAPS, batch_size=24, verbose=0, return_dict=True)
    return {name: float(value) for name, value in found.items()}


def main():
    predictions, scores = {"x": X, "y": GAPS}, {}
    for seed, (name, (structure, options, loss)) in enumerate(compiled().items()):
        model = network(structure, options, loss, seed)
        predictions[name], scores[name] = model.predict(X, verbose=0), evaluated(model)
        model.save(HERE / f"{name}.keras")
        if name == "cholesky":
            normal = model.layers[-1].distribution(predictions[name])
            for suffix in ("npz", "parquet"):
                normal[:5].save(HERE / f"distribution.{suffix}")
            predictions["distribution_mean"] = normal[:5].mean
            predictions["distribution_covariance"] = normal[:5].covariance
            for kind in ("MatrixScaling", "PerTarget", "Temperature"):
                calibration = getattr(kmvn.calibration, kind).fit(normal, Y)
                calibrated = calibration.apply(model)
                predictions[kind] = calibrated.predict(X, verbose=0)
                if kind == "MatrixScaling":
                    calibrated.save(HERE / "calibrated.keras")

    seeds = iter((50, 51))
    ensemble = kmvn.ensemble.DeepEnsemble(
        lambda: network(cov.LowRank(1), {}, losses.NegativeLogLikelihood(), next(seeds)), 2
    )
    shutil.rmtree(HERE / "ensemble", ignore_errors=True)
    ensemble.save(HERE / "ensemble")
    mixture = ensemble.predict(X)
    predictions["ensemble_mean"], predictions["ensemble_covariance"] = (
        mixture.mean,
        mixture.covariance,
    )
    np.savez_compressed(HERE / "predictions.npz", **predictions)
    (HERE / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    table()


def table():
    """A table with a category, a date, gaps in inputs and targets, and a fit directory of it."""
    lines = ["site,day,temperature,humidity,ozone,nox"]
    generator = np.random.default_rng(1)
    for i in range(260):
        t, h = generator.normal(20, 5), generator.uniform(20, 90)
        noise = generator.normal(size=2)
        ozone, nox = 40 + t + 3 * noise[0], 30 - 0.2 * h + 2 * noise[0] + 3 * noise[1]
        cells = [
            "abc"[i % 3],
            f"2024-0{1 + i % 9}-{1 + i % 28:02d}",
            "" if i % 11 == 0 else f"{t:.2f}",
            f"{h:.1f}",
            f"{ozone:.2f}",
            "" if i % 13 == 0 else f"{nox:.2f}",
        ]
        lines.append(",".join(cells))
    (HERE / "table.csv").write_text("\n".join(lines) + "\n")
    shutil.rmtree(HERE / "fit", ignore_errors=True)
    keras_mvn = str(Path(sys.executable).with_name("keras-mvn"))
    subprocess.run(
        [
            *(keras_mvn, "fit", "table.csv", "--targets", "ozone,nox", "--out", "fit"),
            *("--hidden", "6", "--epochs", "15", "--members", "2", "--covariance", "cholesky"),
            "--no-baselines",
        ],
        cwd=HERE,
        check=True,
    )
    for report in ("report.html", "report.md"):
        (HERE / "fit" / report).unlink()
    subprocess.run(
        [keras_mvn, "predict", "fit", "table.csv", "--out", "fit_predictions.csv"],
        cwd=HERE,
        check=True,
    )


if __name__ == "__main__":
    main()
