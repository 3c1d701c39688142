"""Where the repository and the data of the tests are."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data"
