"""Time the start of the command, relative to importing Keras in the same environment.

    KERAS_BACKEND=jax python benchmarks/startup.py

`--help`, `--version`, invalid usage and a missing file import neither Keras nor a backend, and may
take at most 0.35 times as long as `python -c "import keras"`; predicting three rows from a fit
directory, at most 1.5 times. Because the machine may be busy, commands alternate with the import,
and the medians of the pairwise ratios are printed: of wall-clock time, and of processor time of the
process and its children.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAVED = Path(__file__).parent.parent / "tests/data/files_of_0_1_0"
COMMANDS = {
    "--help": ["--help"],
    "--version": ["--version"],
    "fit --help": ["fit", "--help"],
    "an unknown option": ["fit", "--nonsense"],
    "an unknown command": ["nonsense"],
    "a missing file": ["fit", "nowhere.csv", "--targets", "a", "--out", "fit"],
    "predict, 3 rows": ["predict", str(SAVED / "fit"), "three.csv", "--out", "out.csv"],
}
LIMITS = {name: 1.5 if name.startswith("predict") else 0.35 for name in COMMANDS}


def timed(command: list[str], folder: str) -> tuple[float, float]:
    """Return wall-clock seconds and processor seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    keras_mvn = str(Path(sys.executable).with_name("keras-mvn"))
    importing = [sys.executable, "-c", "import keras"]
    print(f"backend {os.environ.get('KERAS_BACKEND', 'of keras.json')}, {repeat} pairs each")
    print(f"{'command':<20} {'clock':>7} {'processor':>10} {'limit':>6}   (of `import keras`)")
    with tempfile.TemporaryDirectory() as folder:
        rows = (SAVED / "table.csv").read_text().splitlines()[:4]
        (Path(folder) / "three.csv").write_text("\n".join(rows) + "\n")
        timed(importing, folder)  # from disk, once
        for name, arguments in COMMANDS.items():
            pairs = [
                (timed([keras_mvn, *arguments], folder), timed(importing, folder))
                for _ in range(repeat)
            ]
            clock, processor = (
                statistics.median(own[i] / reference[i] for own, reference in pairs)
                for i in range(2)
            )
            print(f"{name:<20} {clock:>7.2f} {processor:>10.2f} {LIMITS[name]:>6}", flush=True)


if __name__ == "__main__":
    main()
