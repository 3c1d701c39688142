"""The folders of the package and which way imports run between them, read by `ast`."""

import ast
import importlib
import re

import pytest

import keras_mvn
from paths import ROOT

LIBRARY = ROOT / "src/keras_mvn"

ORDER = [
    {"_core"},
    {"tables", "covariances"},
    {"layouts"},
    {"kernels", "regularizers"},
    {"ops"},
    {"distributions", "losses", "metrics"},
    {"layers", "scores"},
    {"calibration", "callbacks", "ensemble"},
    {"_training", "plots", "report", "exporting"},
    {"estimator"},
    {"serving", "explain"},
    {"integrations"},
    {"__init__"},
]
"""Rooms, from the ground up: each imports from lines above its own only."""

FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}

MAY_BE_LONGER = {
    "distributions/base.py",
    "estimator/regressor.py",
    "covariances/base.py",
    "layers/multivariate_normal_head.py",
    "plots.py",
    "ops/_functions.py",
    "report/_advice.py",
}

PUBLIC = {
    "keras_mvn": (
        "Mixture", "MultivariateNormal", "MultivariateNormalRegressor", "MultivariateStudentT",
        "calibration", "callbacks", "covariances", "distributions", "ensemble", "estimator",
        "evaluate", "export", "kernels", "layers",
        "layouts", "losses", "metrics", "ops", "regions", "regularizers", "scores", "__version__",
    ),
    "keras_mvn.calibration": (
        "AdaptiveConformal", "ConformalPredictor", "ConformalRegion", "ConformalScores",
        "CovarianceMap", "CoverageCurve", "Diagnosis",
        "MatrixScaling",
        "MondrianConformal", "PerTarget", "RadialIsotonic", "Recalibration", "SplitConformal",
        "Temperature", "diagnose",
    ),
    "keras_mvn.callbacks": (
        "BetaAnnealing", "CovarianceMonitor", "MeanWarmUp", "NonFiniteGuard", "WarnOnOverfitting",
    ),
    "keras_mvn.covariances": (
        "Banded", "BlockDiagonal", "Cholesky", "Correlation", "Covariance", "Diagonal",
        "Isotropic", "Kronecker", "LowRank", "PrecisionCholesky", "Symmetric", "TargetSummary",
        "get",
    ),
    "keras_mvn.distributions": (
        "Distribution", "HighestDensityRegion", "Mixture", "MultivariateNormal",
        "MultivariateStudentT", "TransformedDistribution", "TransformedRegion",
    ),
    "keras_mvn.ensemble": ("DeepEnsemble",),
    "keras_mvn.estimator": ("MultivariateNormalRegressor",),
    "keras_mvn.explain": (
        "Correlation", "LogVolume", "Mean", "Stddev", "partial_dependence",
        "permutation_importance", "shapley_values",
    ),
    "keras_mvn.exporting": ("export",),
    "keras_mvn.integrations": ("log_fit", "log_model", "pruning", "suggest"),
    "keras_mvn.kernels": ("elliptical", "recording", "status"),
    "keras_mvn.layers": ("MultivariateMixtureHead", "MultivariateNormalHead"),
    "keras_mvn.layouts": ("get", "Layout", "Reader"),
    "keras_mvn.losses": (
        "BalancedNegativeLogLikelihood", "BalancedStudentT", "BetaNegativeLogLikelihood", "CRPS",
        "EnergyScore", "FaithfulNegativeLogLikelihood", "MixtureNegativeLogLikelihood",
        "NaturalGradientNegativeLogLikelihood",
        "NegativeLogLikelihood", "StudentT", "VariogramScore",
    ),
    "keras_mvn.metrics": (
        "Coverage", "CoverageError", "MeanHalfLogDet", "NegativeLogLikelihood",
        "RootMeanSquaredError",
    ),
    "keras_mvn.ops": (
        "covariance", "entropy", "kl_divergence", "log_prob", "mahalanobis", "mean", "region_level",
        "sample", "scale_tril", "stddev", "variance",
    ),
    "keras_mvn.plots": ("conditioning", "correlation_heatmap", "ellipses", "joint_calibration"),
    "keras_mvn.regularizers": (
        "ConditionNumber", "CovarianceL1", "CovarianceL2", "HalfLogDet", "InverseWishart", "LKJ",
        "Shrinkage",
    ),
    "keras_mvn.report": ("ReportData", "write"),
    "keras_mvn.scores": (
        "crps", "dawid_sebastiani", "energy_score", "evaluate", "interval_score", "log_score",
        "variogram_score",
    ),
    "keras_mvn.serving": ("BatchPredictor", "FittedModel"),
    "keras_mvn.tables": ("Preprocessing", "Table", "open_table"),
}  # fmt: skip
"""What users import, and from where."""


def files(folder):
    return sorted(folder.rglob("*.py"))


def imported_modules(path, package="keras_mvn"):
    """Dotted names of this package's modules that a file imports, lazily or for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module]
            if node.module == package:  # a room, or a name of __init__
                names = [f"{package}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name and name.split(".")[0] == package)


def room_of(module):
    """The room of a dotted name: layouts for `keras_mvn.layouts._tag`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"


def room_of_file(path):
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.once
class TestRooms:
    def test_every_entry_of_the_root_has_its_place(self):
        entries = {
            path.name.removesuffix(".py")
            for path in LIBRARY.iterdir()
            if path.name not in ("__pycache__", "py.typed")
        }
        assert entries == set(FLOOR)
        assert len(entries) + 1 <= 25  # py.typed is one, too
        assert not [path.name for path in LIBRARY.glob("_*.py") if path.name != "__init__.py"]

    def test_imports_run_downwards(self):
        up = [
            f"{path.relative_to(LIBRARY)} imports {module}"
            for path in files(LIBRARY)
            for module in imported_modules(path)
            if room_of(module) != room_of_file(path)
            and FLOOR[room_of(module)] >= FLOOR[room_of_file(path)]
        ]
        assert up == []

    def test_the_library_does_not_import_the_command(self):
        for path in files(LIBRARY):
            assert not list(imported_modules(path, "keras_mvn_cli")), path

    def test_the_command_imports_the_library_in_bodies_only(self):
        """Or `--help` would take the seconds that Keras takes. `fitting` is imported in bodies."""
        entry = ["main", "_group", "_command", "_console", "_fit_directory", "_options", "backends"]
        commands = [
            path.stem
            for path in (ROOT / "src/keras_mvn_cli").glob("[a-z]*.py")
            if path.stem not in entry
        ]
        assert len(commands) == 10
        for name in [*entry, *commands]:
            tree = ast.parse((ROOT / f"src/keras_mvn_cli/{name}.py").read_text())
            for node in tree.body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    module = getattr(node, "module", None) or node.names[0].name
                    assert module.split(".")[0] not in ("keras", "keras_mvn", "numpy"), name

    def test_files_are_short(self):
        long = {}
        for path in [*files(LIBRARY), *files(ROOT / "src/keras_mvn_cli")]:
            name = str(path.relative_to(ROOT / "src"))
            may = name.removeprefix("keras_mvn/") in MAY_BE_LONGER
            lines = len(path.read_text().splitlines())
            if lines > (600 if may else 450):
                long[name] = lines
        assert long == {}

    def test_no_circles_between_modules(self):
        graph = {}
        for path in files(LIBRARY):
            parts = ["keras_mvn", *path.relative_to(LIBRARY).with_suffix("").parts]
            graph[".".join(p for p in parts if p != "__init__")] = set(module_imports(path))
        seen, open_ = set(), []

        def visit(module):
            if module in open_:
                raise AssertionError(" → ".join([*open_[open_.index(module) :], module]))
            if module in seen:
                return
            open_.append(module)
            for other in graph.get(module, ()):
                visit(other)
            seen.add(open_.pop())

        for module in graph:
            if module != "keras_mvn":
                visit(module)


def module_imports(path):
    """Modules that a file imports: `from package import module` is the module, not the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("keras_mvn."))
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("keras_mvn"):
            folder = ROOT / "src" / node.module.replace(".", "/")
            for alias in node.names:
                inner = folder / alias.name
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                found = f"{node.module}.{alias.name}" if is_module else node.module
                if found != "keras_mvn":
                    yield found


@pytest.mark.parametrize("module", PUBLIC)
def test_public_paths(module):
    found = importlib.import_module(module)
    for name in PUBLIC[module]:
        assert hasattr(found, name), f"{module}.{name}"


def test_regions_stay_public():
    assert keras_mvn.regions.Ellipsoid


@pytest.mark.once
def test_the_reference_names_public_paths_only():
    page = "\n".join(one.read_text() for one in (ROOT / "docs/api").glob("*.md"))
    named = [line.split(":: ")[1] for line in page.splitlines() if line.startswith(".. auto")]
    assert len(set(named)) > 25
    assert not [name for name in named if "._" in name]


def test_nobody_asks_for_the_class_of_an_answer():
    """A mixture flattens mixtures; everybody else asks the base of all answers."""
    answers = "MultivariateNormal|MultivariateStudentT|Mixture|TransformedDistribution|Gaussian"
    asked = {
        path.name
        for path in [*files(LIBRARY), *files(ROOT / "src/keras_mvn_cli")]
        if re.search(rf"(isinstance|issubclass)\([^()]*\b({answers})\b", path.read_text())
    }
    assert asked == {"mixture.py"}
