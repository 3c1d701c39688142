"""Compare plain and embedded inputs on real tables, and the choice between them.

    python benchmarks/embeddings.py --data FOLDER --tables jura,scpf --seeds 0 1

Splits and figures as in tails.py, of the estimator as it comes with `embedding=` None, "periodic"
and "auto", of which the chosen inputs are printed.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from keras_mvn import scores
from keras_mvn.estimator import MultivariateNormalRegressor
from tails import divided


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", default="jura,slump,edm,scpf,atp1d,wq,air,births1,casp,energy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--limit", type=int, default=6000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("table    seed inputs       NLL   cell  energy   RMSE  in 90 %     s")
    for name in arguments.tables.split(","):
        for seed in arguments.seeds:
            x, y, train, test = divided(arguments.data, name, arguments.limit, seed)
            for embedding in (None, "periodic", "auto"):
                began = time.perf_counter()
                model = MultivariateNormalRegressor(random_state=seed, embedding=embedding)
                answer = model.fit(x[train], y[train]).predict_distribution(x[test])
                seconds = time.perf_counter() - began
                found = scores.evaluate(
                    answer, y[test], missing="marginalize", target_scale=1.0, levels=0.9,
                    resolution=model.head_.resolution,
                )  # fmt: skip
                cell = found["cell_nll_per_target"].mean if "cell_nll" in found else np.nan
                chosen = f" {model.selection_[0]['embedding']}" if embedding == "auto" else ""
                print(
                    f"{name:8s} {seed:4d} {embedding!s:9s} {found['nll_per_target'].mean:6.3f}"
                    f" {cell:6.3f} {found['energy_score'].mean / np.sqrt(y.shape[1]):7.4f}"
                    f" {found['rmse'].mean:6.3f} {found['coverage_90'].mean:8.3f} {seconds:6.1f}"
                    f"{chosen}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
