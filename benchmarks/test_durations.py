"""Where the time of the test suite goes: by file and by test, from `pytest --durations=0`.

    make durations                                    # runs the suite on each backend, then this
    python benchmarks/test_durations.py build/durations/*.txt

Seconds are those of the workers, so that a run on two of them takes about half of the sum. A test
with parameters counts as one, with the number of its cases.
"""

import argparse
import collections
import re
from pathlib import Path

LINE = re.compile(r"^([\d.]+)s (setup|call|teardown)\s+(\S+?)(\[.*)?$")


def read(path: Path) -> list[tuple[str, str, float]]:
    """(file, test, seconds) of every line of the durations in pytest's output."""
    found = []
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        if match:
            file, _, test = match[3].partition("::")
            found.append((file, test, float(match[1])))
    return found


def table(title: str, sums: dict[str, float], counts: dict[str, int], most: int) -> None:
    print(f"\n{title}")
    for name, seconds in sorted(sums.items(), key=lambda item: -item[1])[:most]:
        print(f"{seconds:8.1f} s {counts[name]:6d}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=40, help="lines of a table")
    arguments = parser.parse_args()
    for log in arguments.logs:
        lines = read(log)
        total = sum(seconds for *_, seconds in lines)
        print(f"\n=== {log.name}: {total:.0f} s in {len(lines)} phases of 5 ms or more")
        for title, key in (
            ("by file", lambda file, test: file),
            ("by test", lambda file, test: f"{file}::{test}"),
        ):
            sums: dict[str, float] = collections.defaultdict(float)
            counts: dict[str, int] = collections.defaultdict(int)
            for file, test, seconds in lines:
                sums[key(file, test)] += seconds
                counts[key(file, test)] += 1
            table(title, sums, counts, arguments.most)


if __name__ == "__main__":
    main()
