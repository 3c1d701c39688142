"""The package as a whole: exports, backends, the README, the command."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas
import pytest

import commands
import keras_mvn
import keras_mvn_cli
from keras_mvn_cli import backends
from paths import ROOT

BACKENDS = ["jax", "tensorflow", "torch"]
# Kernels are those of the backend in use; Triton's, of a GPU.
OF_OTHERS = {"jax", "pallas", "tensorflow", "torch", "triton"} - {keras.backend.backend()}
MODULES = sorted(
    m.name
    for package in (keras_mvn, keras_mvn_cli)
    for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not (".kernels." in m.name and m.name.rpartition(".")[2].strip("_") in OF_OTHERS)
)


def python(code, cwd, **environment):
    """Run code in a new process; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


class TestExports:
    @pytest.mark.parametrize("name", MODULES)
    def test_all_is_complete_and_true(self, name):
        module = importlib.import_module(name)
        for exported in module.__all__:
            assert hasattr(module, exported)
        tree = ast.parse(Path(module.__file__).read_text())
        defined = {
            node.name for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        }  # fmt: skip
        assert defined <= set(module.__all__)

    @pytest.mark.parametrize("name", [m for m in MODULES if "._" not in m])
    def test_everything_public_is_documented(self, name):
        module = importlib.import_module(name)
        assert module.__doc__
        for exported in module.__all__:
            thing = getattr(module, exported)
            if callable(thing) and getattr(thing, "__module__", "").startswith("keras_mvn"):
                assert thing.__doc__, f"{name}.{exported}"

    def test_the_library_names_no_backend(self):
        sources = [p for p in (ROOT / "src/keras_mvn").rglob("*.py") if "kernels" not in p.parts]
        for path in sources:
            imported = {
                name.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                for name in (
                    [a.name for a in node.names] if isinstance(node, ast.Import)
                    else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                )
            }  # fmt: skip
            assert not imported & {"jax", "tensorflow", "torch"}, path
            assert 'environ["KERAS_BACKEND"]' not in path.read_text()


class TestBackends:
    @pytest.fixture
    def clean(self, monkeypatch, tmp_path):
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        return tmp_path

    def only(self, monkeypatch, *names):
        monkeypatch.setattr(backends, "installed_backends", lambda: list(names))

    def test_keras_own_order(self, clean, monkeypatch):
        assert backends.configured_backend() == "tensorflow"
        (clean / "keras.json").write_text('{"backend": "torch"}')
        assert backends.configured_backend() == "torch"
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        assert backends.configured_backend() == "jax"

    @pytest.mark.parametrize("content", ["", "not json", "[]"])
    def test_a_broken_configuration_is_the_default(self, clean, content):
        (clean / "keras.json").write_text(content)
        assert backends.configured_backend() == "tensorflow"

    def test_it_takes_the_one_that_is_installed(self, clean, monkeypatch):
        self.only(monkeypatch, "jax")
        monkeypatch.setenv("KERAS_BACKEND", "")  # so that it is put back
        monkeypatch.delenv("KERAS_BACKEND")
        backends.choose_backend()
        assert os.environ["KERAS_BACKEND"] == "jax"

    def test_it_leaves_a_working_choice_alone(self, clean, monkeypatch):
        self.only(monkeypatch, "tensorflow", "jax")
        backends.choose_backend()
        assert "KERAS_BACKEND" not in os.environ

    def test_it_does_not_overrule_the_user(self, clean, monkeypatch):
        self.only(monkeypatch, "jax")
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        backends.choose_backend()
        assert os.environ["KERAS_BACKEND"] == "torch"

    @pytest.mark.slow
    def test_import_explains_a_missing_backend(self, tmp_path):
        hide = (
            "import sys\n"
            "class Hide:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.split('.')[0] in ('tensorflow', 'torch'):\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Hide())\n"
            "import importlib.util\n"
            "real = importlib.util.find_spec\n"
            "hidden = ('tensorflow', 'torch')\n"
            "importlib.util.find_spec = lambda n: None if n in hidden else real(n)\n"
            "try:\n    import keras_mvn\n"
            "except ImportError as error:\n    print(error)\n"
        )
        said = python(hide, tmp_path, KERAS_BACKEND="tensorflow")
        assert "export KERAS_BACKEND=jax" in said
        assert "'tensorflow', which could not be imported" in said

    @pytest.mark.slow
    def test_the_command_explains_a_missing_backend_in_one_line(self, tmp_path):
        hide = (
            "import sys\n"
            "class Hide:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.split('.')[0] in ('jax', 'tensorflow', 'torch'):\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "import importlib.util\n"
            "real = importlib.util.find_spec\n"
            "hidden = ('jax', 'tensorflow', 'torch')\n"
            "importlib.util.find_spec = lambda n: None if n in hidden else real(n)\n"
            "sys.meta_path.insert(0, Hide())\n"
            "from keras_mvn_cli.main import main\n"
            "sys.argv[1:] = ['info']\n"
            "try:\n    main()\n"
            "except SystemExit as error:\n    print(error.code)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True,
            check=False, env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        )  # fmt: skip
        assert result.stdout == "2\n"
        assert result.stderr.startswith("keras-mvn: Keras needs a backend and none is installed.")
        assert len(result.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of trained models, and of what they predict."""
    keras.utils.set_random_seed(0)
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("saved")
    x, y = rng.normal(size=(32, 2)), rng.normal(size=(32, 3))
    expected = {}
    for name in ("isotropic", "diagonal", "cholesky", "precision_cholesky", "symmetric"):
        head = keras_mvn.layers.MultivariateNormalHead(3, name, target_names=["a", "b", "c"])
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "gelu"), head])
        model.compile(
            "adam",
            loss=keras_mvn.losses.NegativeLogLikelihood(
                name, regularizer=keras_mvn.regularizers.CovarianceL1(0.01)
            ),
            metrics=[keras_mvn.metrics.Coverage(0.9, name)],
            # Compiled on JAX it is compiled on PyTorch too, which takes long: one will do.
            jit_compile="auto" if name == "cholesky" else False,
        )
        model.fit(x, y, verbose=0)
        model.save(folder / f"{name}.keras")
        expected[name] = model.predict(x, verbose=0)
    np.savez(folder / "expected.npz", x=x, y=y, **expected)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("reader", [b for b in BACKENDS if b != keras.backend.backend()])
@pytest.mark.elsewhere(False)
def test_another_backend_loads_what_this_one_saved(reader, saved):
    python(
        "import numpy as np, keras, keras_mvn\n"
        f"assert keras.backend.backend() == {reader!r}\n"
        "data = np.load('expected.npz')\n"
        "for name in ('isotropic', 'diagonal', 'cholesky', 'precision_cholesky', 'symmetric'):\n"
        "    model = keras.models.load_model(f'{name}.keras')  # safe mode, no custom_objects\n"
        "    got = model.predict(data['x'], verbose=0)\n"
        "    np.testing.assert_allclose(got, data[name], rtol=2e-4, atol=2e-5)\n"
        "    assert model.layers[-1].distribution(got).target_names == ('a', 'b', 'c')\n"
        "    assert np.isfinite(model.evaluate(data['x'], data['y'], verbose=0)).all()\n",
        saved, KERAS_BACKEND=reader,
    )  # fmt: skip


@pytest.mark.slow
def test_the_readmes_quick_start_runs_as_written(tmp_path):
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    assert len(blocks) >= 2
    code = "\n".join(blocks) + "\nprint('log-likelihood', normal.log_prob(y_test).mean())"
    assert "log-likelihood" in python(code, tmp_path)
    assert (tmp_path / "model.keras").exists()


PATIENTS = """
import keras, numpy as np, keras_mvn as kmvn
from sklearn.datasets import load_diabetes

keras.utils.set_random_seed(0)
data = load_diabetes(scaled=False)
x, y = data.data[:, :4], data.data[:, 4:]
x_train, x_val, x_calibration, x_test = np.split(x, [200, 260, 350])
y_train, y_val, y_calibration, y_test = np.split(y, [200, 260, 350])

def build_model():
    head = kmvn.layers.MultivariateNormalHead(6, target_names=data.feature_names[4:])
    head.adapt(y_train)
    scale = keras.layers.Normalization()
    scale.adapt(x_train)
    model = keras.Sequential([keras.Input((4,)), scale, keras.layers.Dense(8, "gelu"), head])
    model.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
    return model

model = build_model()
head = model.layers[-1]
normal = head.distribution(model.predict(x_test))
limits = upper = y_train.mean(axis=0) + y_train.std(axis=0)
lower, p, q = upper - 100.0, normal, normal.rescale(1.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", ["distribution", "calibration"])
@pytest.mark.elsewhere(False)
@pytest.mark.filterwarnings("ignore")
def test_the_pages_on_predictions_run(page, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), flags=re.S)
    code = "\n".join(blocks).replace("epochs=200", "epochs=2")
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    exec(PATIENTS + code, {})
    printed = capsys.readouterr().out
    expected = {"distribution": "energy_score", "calibration": "The 90 % region covers"}
    assert expected[page] in printed


@pytest.mark.slow
@pytest.mark.elsewhere(False)
def test_the_page_on_adding_a_covariance_works(tmp_path):
    page = (ROOT / "docs/add_a_covariance.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.S))
    check = """
sigma = structure.covariance(*structure.constrain(rng.normal(size=(3, 5)), 4))
z, log_det = structure.whiten(np.full((1, 1), 0.4), np.ones((1, 4)))
r = structure.shape_matrix(np.full((1, 1), 0.4), 4)[0]
assert np.isclose((z**2).sum(), np.ones(4) @ np.linalg.inv(r) @ np.ones(4))
assert np.isclose(log_det[0], 0.5 * np.linalg.slogdet(r)[1])
u = rng.normal(size=(1, 4))
p = np.full((1, 1), 0.4)
assert np.allclose(structure.color(p, structure.whiten(p, u)[0]), u)
pairs = normal.correlation[:, *np.triu_indices(4, 1)]
assert np.allclose(pairs, pairs[:, :1]) and (pairs > 0).all() and (pairs < 1).all()
assert np.isfinite(normal.log_prob(y)).all()
"""
    python(code + check, tmp_path)


@pytest.mark.slow
class TestCommand:
    def run(self, *arguments, cwd):
        command = Path(sys.executable).with_name("keras-mvn")
        return subprocess.run(
            [command, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )

    @pytest.mark.once
    def test_demo(self, tmp_path):
        result = self.run("demo", "--time-budget", "2", cwd=tmp_path)
        assert result.returncode == 0, result.stderr[-3000:]
        for words in ("model", "constant Σ", "diagonal", "ridge and one Σ", "What is the evening"):
            assert words in result.stdout
        assert "…" not in result.stdout.split("test rows")[1]  # nothing was cut off at 80 columns
        assert "468.659 in line 337" in result.stderr  # a glitch of the data
        folder = tmp_path / "keras-mvn-demo"
        assert {path.name for path in folder.iterdir()} == {"weather.csv", "fit", "figure.png"}
        assert (folder / "figure.png").stat().st_size > 50_000
        assert (folder / "fit" / "report.html").is_file()
        header = (folder / "weather.csv").read_text().splitlines()[0].split(",")
        assert len(header) == 54

    @pytest.mark.once
    def test_the_demos_table_has_what_came_later(self):
        from keras_mvn_cli import _weather

        frame = _weather.table(_weather.file_of_the_package()).set_index("time")
        raw = pandas.read_csv(_weather.file_of_the_package())
        at = raw[(raw.origin == "JFK") & (raw.month == 7) & (raw.day == 4)].set_index("hour")
        row = frame.loc["2013-07-04 11:00"]  # standard time: one hour less than the clock's
        assert row["JFK_temp"] == pytest.approx((at.temp[12] - 32) / 1.8, abs=1e-3)
        assert row["JFK_temp_6h"] == pytest.approx((at.temp[18] - 32) / 1.8, abs=1e-3)
        assert row["JFK_wind_6h"] == pytest.approx(0.44704 * at.wind_speed[18], abs=1e-3)
        assert not frame.filter(regex="_6h|_12h").isna().any().any()

    def test_info_and_help(self, tmp_path):
        info = self.run("info", cwd=tmp_path)
        assert keras_mvn.__version__ in info.stdout
        assert f"{keras.backend.backend()} " in info.stdout
        assert "demo" in self.run("--help", cwd=tmp_path).stdout

    @pytest.mark.once
    def test_a_folder_that_cannot_be_made(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.chdir(tmp_path)
        result = commands.run("demo", "--out", "file/folder", code=1)
        assert "Error: --out file/folder" in result.stderr
        assert "Traceback" not in result.stderr
