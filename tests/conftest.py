"""Set-up for every test: one thread per worker, a fixed seed, the active backend's name."""

import os
from pathlib import Path

# Before any backend is imported: each of them takes all cores otherwise, in every worker.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# JAX compiles every operation for every shape: once for all workers, processes and runs.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import functools
import importlib.util

import keras
import numpy as np
import pytest

import differentiation

collect_ignore = ["quick_start"]  # a doctest would import it here, and hide TensorFlow

# What the modules of `kernels` with these names import beside the backend of their own name.
_PART_OF = {"triton": "torch", "pallas": "jax"}


def pytest_ignore_collect(collection_path):
    """True for a file that would import a backend that is not in use, or Triton where it is not."""
    name = collection_path.stem.strip("_")
    backend = _PART_OF.get(name, name)
    if "kernels" not in collection_path.parts or backend not in ("jax", "tensorflow", "torch"):
        return None
    here = name == "pallas" or importlib.util.find_spec(name) is not None
    return None if here and backend == keras.backend.backend() else True


@pytest.fixture(autouse=True, scope="session")
def _quick_start():
    """New processes start without TensorFlow, unless it is their backend."""
    folder, before = str(Path(__file__).parent / "quick_start"), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, before]))
    yield
    os.environ["PYTHONPATH"] = before or ""


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Both widths; JAX computes in float64 only when told so.

    What is written in `keras.ops` is computed in float64 with PyTorch alone, where that is quick;
    kernels (marked "widths") are on every backend.
    """
    wide = request.param == "float64" and keras.backend.backend() != "torch"
    if wide and not request.node.get_closest_marker("widths"):
        pytest.skip("keras.ops in float64: with PyTorch")
    with differentiation.precision(request.param):
        yield request.param


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items):
    """Leave to PyTorch, which starts operations fastest, what the other backends would repeat.

    Tests marked "once" do not touch a backend's tensors, and examples in docstrings are
    documentation. Of those marked "elsewhere", JAX and
    TensorFlow run the cases that the marker names, one for each path through the code; the others
    are marked "full", and run in `make test-full`.
    """
    if keras.backend.backend() == "torch":
        return
    skip = pytest.mark.skip(reason="the backend takes no part; run with PyTorch")
    for item in items:
        if item.get_closest_marker("once") or isinstance(item, pytest.DoctestItem):
            item.add_marker(skip)
        if not all(map(functools.partial(_is_among, item), item.iter_markers("elsewhere"))):
            item.add_marker(pytest.mark.full)


def _is_among(item, marker):
    """Whether the parameters of a test are among those that its marker names; False: none are."""
    if marker.args == (False,):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return all(
        _spelled(parameters[name]) in map(_spelled, kept)
        for name, kept in marker.kwargs.items()
        if name in parameters
    )


def _spelled(value):
    """A parameter by its name, if it has one: structures, classes, functions."""
    return str(getattr(value, "name", getattr(value, "__name__", value)))
