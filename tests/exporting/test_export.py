"""Exported files, run in their own runtimes, against what the model predicts."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_mvn import Mixture, MultivariateNormal, calibration, covariances, layers, losses
from keras_mvn.calibration import Temperature
from keras_mvn.covariances._solver_free import cholesky, inverse_unit_lower, written_out
from keras_mvn.ensemble import DeepEnsemble
from keras_mvn.exporting import _export, export
from keras_mvn.exporting._onnx import Onnx
from keras_mvn.exporting._outputs import OUTPUTS
from structures import STRUCTURES, named

BACKEND = keras.backend.backend()
FORMATS = ["onnx"] if BACKEND == "torch" else ["onnx", "saved_model"]
UNITS = np.array([1.0, 10.0, 0.1, 1000.0])


def model_of(structure, **options):
    """A network whose covariances differ from row to row, for targets in four units."""
    rng = np.random.default_rng(0)
    head = layers.MultivariateNormalHead(
        4, structure, covariance_kernel_initializer="glorot_uniform", **options
    )
    head.adapt(rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) * UNITS)
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, head(keras.layers.Dense(8, "gelu")(inputs))), head


def rows(number, seed=1):
    return np.random.default_rng(seed).normal(size=(number, 3)).astype("float32")


def path_in(folder, format):
    return folder / ("model.onnx" if format == "onnx" else "model")


def run(path, inputs):
    """Outputs by name, in the runtime of the format."""
    if path.is_file():
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(path)
        feed = inputs if isinstance(inputs, dict) else {session.get_inputs()[0].name: inputs}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feed), strict=True))
    tensorflow = pytest.importorskip("tensorflow")
    loaded = tensorflow.saved_model.load(str(path))
    return {name: output.numpy() for name, output in loaded.serve(inputs).items()}


OF_A_MIXTURE = [name for name in OUTPUTS if name.startswith("component_")]
OF_A_NORMAL = [
    name for name, one in OUTPUTS.items() if not one.of_student_t and name not in OF_A_MIXTURE
]


def worst_difference(served, normal):
    """Of every output, in standard deviations of the targets."""
    sd = normal.stddev
    units = {
        "mean": sd,
        "covariance": sd[..., :, None] * sd[..., None, :],
        "scale_tril": sd[..., :, None],
        "stddev": sd,
        "correlation": 1.0,
    }
    return {
        name: np.abs((values - getattr(normal, name)) / units[name]).max()
        for name, values in served.items()
        if name in units
    }


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, tmp_path_factory):
    """One structure with everything in the file."""
    keras.utils.set_random_seed(0)
    model, head = model_of("precision_cholesky", target_names=["a", "b", "c", "d"])
    path = path_in(tmp_path_factory.mktemp("exported"), request.param)
    assert export(model, path, request.param, OF_A_NORMAL) is None
    return path, model, head


@pytest.mark.parametrize("number", [1, 2, 64])
@pytest.mark.slow
def test_the_file_gives_what_the_model_predicts(exported, number):
    path, model, head = exported
    x = rows(number)
    y_pred = model.predict(x, verbose=0)
    served = run(path, x)
    assert set(served) == set(OF_A_NORMAL)
    unit = np.concatenate([UNITS, UNITS, np.ones(y_pred.shape[1] - 8)])
    np.testing.assert_allclose(served["y_pred"] / unit, y_pred / unit, rtol=1e-5, atol=1e-5)
    differences = worst_difference(served, head.distribution(y_pred))
    assert len(differences) == 5
    assert max(differences.values()) < 1e-5, differences


def test_the_covariances_in_the_file_differ_from_row_to_row(exported):
    correlation = run(exported[0], rows(64))["correlation"]
    assert np.ptp(correlation[:, 1, 0]) > 0.1


def test_the_file_says_what_it_holds(exported):
    path, _, head = exported
    if path.is_file():
        onnx = pytest.importorskip("onnx")
        model = onnx.load(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert [output.name for output in model.graph.output] == OF_A_NORMAL
        assert [taken.name for taken in model.graph.input] == ["x"]
        for tensor in (*model.graph.input, *model.graph.output):
            assert tensor.type.tensor_type.shape.dim[0].dim_param == "batch"
    else:
        metadata = json.loads((path / "assets.extra" / "keras_mvn.json").read_text())
    assert json.loads(metadata["keras_mvn.target_names"]) == ["a", "b", "c", "d"]
    assert set(json.loads(metadata["keras_mvn.outputs"])) == set(OF_A_NORMAL)
    assert covariances.get(json.loads(metadata["keras_mvn.covariance"])) == head.covariance
    assert metadata["keras_mvn.layout"] == "packed"
    assert metadata["keras_mvn.version"]


def test_an_onnx_file_says_nothing_of_the_machine_it_was_made_on(exported):
    if not exported[0].is_file():
        pytest.skip("JAX writes where each operation came from into a SavedModel")
    content = exported[0].read_bytes()
    assert sys.prefix.encode() not in content
    assert b"keras_mvn/" not in content


def test_an_onnx_file_needs_neither_keras_nor_this_library(exported):
    path = exported[0]
    if not path.is_file():
        pytest.skip("SavedModel: the file's own test")
    program = f"""
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession({str(path)!r})
session.run(None, {{"x": numpy.zeros((2, 3), "float32")}})
print([name for name in ("keras", "keras_mvn", "torch", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("format", FORMATS[:1])
def test_a_student_t_is_given_whole(format, tmp_path):
    model, head = model_of("cholesky", degrees_of_freedom="per_row")
    path = path_in(tmp_path, format)
    export(model, path, format, ["mean", "covariance", "scale_matrix", "degrees_of_freedom"])
    x = rows(7)
    served, t = run(path, x), head.distribution(model.predict(x, verbose=0))
    np.testing.assert_allclose(served["degrees_of_freedom"], t.degrees_of_freedom, rtol=1e-5)
    unit = t.stddev[:, :, None] * t.stddev[:, None, :]
    np.testing.assert_allclose(served["scale_matrix"] / unit, t.scale_matrix / unit, atol=1e-5)
    np.testing.assert_allclose(served["covariance"] / unit, t.covariance / unit, atol=1e-5)


def test_degrees_of_freedom_of_a_normal_are_refused(tmp_path):
    with pytest.raises(ValueError, match="predicts normals"):
        export(model_of("cholesky")[0], tmp_path / "m.onnx", outputs=["degrees_of_freedom"])


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
@pytest.mark.elsewhere(structure=["low_rank"])  # the others' graphs: with PyTorch
def test_every_structure(structure, format, tmp_path):
    if isinstance(structure, covariances.Symmetric) and (BACKEND, format) != (
        "tensorflow",
        "saved_model",
    ):
        pytest.skip("no eigendecomposition: test_what_a_format_cannot_hold_…")
    model, head = model_of(structure)
    path = path_in(tmp_path, format)
    export(model, path, format, OF_A_NORMAL)
    x = rows(7)
    served = run(path, x)
    differences = worst_difference(served, head.distribution(model.predict(x, verbose=0)))
    assert max(differences.values()) < 1e-5, differences
    outer = served["scale_tril"] @ np.swapaxes(served["scale_tril"], -1, -2)
    np.testing.assert_allclose(outer, served["covariance"], rtol=1e-4, atol=1e-6)
    assert not np.triu(served["scale_tril"], 1).any()


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_cannot_hold_is_an_error_that_says_what_to_do(format, tmp_path):
    model, _ = model_of("symmetric")
    if (BACKEND, format) == ("tensorflow", "saved_model"):
        pytest.skip("it can be held there: test_every_structure")
    with pytest.raises(ValueError, match=f"(?s)'symmetric' cannot be .*{format}.*TensorFlow"):
        export(model, path_in(tmp_path, format), format)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_covariance_of_students_t(format, tmp_path):
    model, head = model_of("cholesky", degrees_of_freedom="constant")
    head.raw_degrees_of_freedom.assign([-1.0])
    path = path_in(tmp_path, format)
    export(model, path, format, ["covariance", "y_pred"])
    served = run(path, rows(7))
    y_pred = served["y_pred"]
    nu = y_pred[:, -1, None, None]
    assert (nu < 6).all()
    n = np.zeros((7, 4, 4))
    n[:, *np.tril_indices(4, -1)] = y_pred[:, 8:14]
    factor = y_pred[:, 4:8, None] * (n + np.eye(4))
    expected = nu / (nu - 2) * factor @ np.swapaxes(factor, -1, -2)
    np.testing.assert_allclose(served["covariance"] / expected, 1.0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("structure", ["cholesky", "precision_cholesky", covariances.LowRank(2)])
@pytest.mark.elsewhere(False)  # an ensemble's recalibration is in its file, on every backend
def test_what_recalibrated_a_model_is_in_the_file(structure, format, tmp_path):
    model, head = model_of(structure)
    x = rows(200)
    normal = head.distribution(model.predict(x, verbose=0))
    y = normal.mean + np.random.default_rng(2).normal(size=(200, 4)) * UNITS
    # A factor is one for all structures; a matrix multiplies L, L⁻¹, or what has to be factored.
    names = ["MatrixScaling", *(["Temperature"] if structure == "cholesky" else [])]
    for name in names:
        recalibration = getattr(calibration, name).fit(normal, y)
        path = path_in(tmp_path, format)
        export(recalibration.apply(model), path, format)
        served = run(path, x)
        differences = worst_difference(served, recalibration.apply(normal))
        assert max(differences.values()) < 2e-5, differences


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.elsewhere(False)  # what is read from the arguments; the graph is that of a head
def test_a_model_without_a_head(format, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2 + 2 + 1)])
    path = path_in(tmp_path, format)
    with pytest.raises(ValueError, match="No MultivariateNormalHead .* covariance="):
        export(model, path, format)
    export(model, path, format, "covariance", covariance="cholesky", from_raw=True)
    x = rows(7)
    raw = model.predict(x, verbose=0)[:, 2:].astype("float64")
    scale, shape_params = covariances.Cholesky().constrain(raw, 2)
    expected = covariances.Cholesky().covariance(scale, shape_params)
    np.testing.assert_allclose(run(path, x)["covariance"], expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_several_inputs_and_outputs_and_steps(format, tmp_path):
    inputs = {
        "level": keras.Input((None, 3), name="level"),
        "place": keras.Input((2,), name="place"),
    }
    place = keras.layers.Dense(8)(inputs["place"])[:, None, :]
    features = keras.layers.Dense(8, "tanh")(inputs["level"]) + place
    head = layers.MultivariateNormalHead(2, "cholesky", name="head")
    other = keras.layers.Dense(1)(features)
    model = keras.Model(inputs, {"other": other, "joint": head(features)})
    path = path_in(tmp_path, format)
    export(model, path, format)
    rng = np.random.default_rng(3)
    x = {
        "level": rng.normal(size=(7, 6, 3)).astype("float32"),
        "place": rng.normal(size=(7, 2)).astype("float32"),
    }
    served = run(path, x)
    assert served["covariance"].shape == (7, 6, 2, 2)
    normal = head.distribution(model.predict(x, verbose=0)["joint"])
    assert max(worst_difference(served, normal).values()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_functions_that_a_converter_may_not_know(format, tmp_path):
    inputs = keras.Input((6,))
    ops = keras.ops
    y_pred = ops.concatenate([ops.expm1(inputs), 1.0 + ops.log1p(ops.abs(inputs))], axis=-1)
    path = path_in(tmp_path, format)
    export(keras.Model(inputs, y_pred), path, format, ["mean", "stddev"], covariance="diagonal")
    x = np.array([[1e-6, -1e-3, 0.1, -1.0, 5.0, -20.0]], "float32")
    served = run(path, x)
    exact = x.astype("float64")
    # The converters of PyTorch and JAX write exp(x) − 1.
    cancels = 0.0 if BACKEND == "tensorflow" else 2e-7
    np.testing.assert_allclose(served["mean"], np.expm1(exact), rtol=1e-6, atol=cancels)
    np.testing.assert_allclose(served["stddev"] - 1, np.log1p(abs(exact)), rtol=1e-6, atol=2e-7)


def on_standardized(outputs_of):
    """A model that standardizes its inputs by known moments, as the estimator's do."""
    inputs = keras.Input((3,), name="x")
    moments = {"mean": [1.0, -2.0, 30.0], "variance": [0.25, 4.0, 100.0]}
    return keras.Model(inputs, outputs_of(keras.layers.Normalization(**moments)(inputs)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.slow
def test_constants_of_a_layer_are_in_the_file(loaded, format, tmp_path):
    # tf2onnx takes tensors that are neither weights nor NumPy arrays for inputs.
    head = layers.MultivariateNormalHead(2, covariance_kernel_initializer="glorot_uniform")
    model = on_standardized(head)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    path = path_in(tmp_path, format)
    export(model, path, format, ["mean", "stddev", "y_pred"])
    x = rows(7) * [0.5, 2.0, 10.0] + [1.0, -2.0, 30.0]
    y_pred = model.predict(x.astype("float32"), verbose=0)
    served = run(path, x.astype("float32"))
    np.testing.assert_allclose(served["y_pred"], y_pred, rtol=1e-5, atol=1e-5)
    del served["y_pred"]
    assert max(worst_difference(served, head.distribution(y_pred)).values()) < 1e-5


def members_of(structure, number=2, **options):
    """Networks that disagree in mean and covariance, and their heads."""
    keras.utils.set_random_seed(0)
    return zip(*[model_of(structure, **options) for _ in range(number)], strict=True)


def mixed(models, heads, x, recalibration=None):
    """The moments of what the models predict, in float64."""
    members = [h.distribution(m.predict(x, verbose=0)) for m, h in zip(models, heads, strict=True)]
    means = np.stack([normal.mean for normal in members])
    spread = np.stack([np.cov(means[:, i].T, bias=True) for i in range(len(x))])
    covariance = np.mean([normal.covariance for normal in members], axis=0) + spread
    normal = MultivariateNormal(means.mean(0), covariance=covariance)
    return normal if recalibration is None else recalibration.apply(normal)


OF_ENSEMBLES = ["mean", "covariance", "stddev", "correlation"]
RECALIBRATIONS = [
    None,
    calibration.Temperature(1.5),
    calibration.PerTarget((0.5, 1.0, 2.0, 3.0)),
    calibration.MatrixScaling(np.tril(np.full((4, 4), 0.3)) + np.eye(4)),
]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("recalibration", "structure"),  # each only sees the moments of the mixture
    list(
        zip(
            RECALIBRATIONS,
            [covariances.LowRank(2), "precision_cholesky", "diagonal", "cholesky"],
            strict=True,
        )
    ),
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
@pytest.mark.elsewhere(recalibration=["Temperature(temperature=1.5)"])
def test_an_ensemble_is_one_file(recalibration, structure, format, tmp_path):
    models, heads = members_of(structure, target_names=["a", "b", "c", "d"])
    path = path_in(tmp_path, format)
    export(models, path, format, OF_ENSEMBLES, calibration=recalibration)
    x = rows(7)
    normal = mixed(models, heads, x, recalibration)
    means = np.stack([model.predict(x, verbose=0)[:, :4] for model in models])
    assert (np.ptp(means, axis=0).max(axis=0) > 0.1 * normal.stddev.min(axis=0)).all()
    served = run(path, x)
    assert list(served) == OF_ENSEMBLES or path.is_dir()
    assert max(worst_difference(served, normal).values()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.elsewhere(False)
def test_an_ensemble_of_students_t(format, tmp_path):
    models, heads = members_of("cholesky", degrees_of_freedom="constant")
    path = path_in(tmp_path, format)
    export(models, path, format, OF_ENSEMBLES)
    x = rows(7)
    assert max(worst_difference(run(path, x), mixed(models, heads, x)).values()) < 1e-5


@pytest.mark.slow
def test_a_deep_ensemble(tmp_path):
    def builder():
        head = layers.MultivariateNormalHead(2, covariance_kernel_initializer="glorot_uniform")
        model = on_standardized(head)
        model.compile("adam", losses.NegativeLogLikelihood())
        return model

    ensemble = DeepEnsemble(builder, n_members=2)
    export(ensemble, tmp_path / "model.onnx", outputs=["mean", "stddev"])
    x = rows(7)
    mixture = ensemble.predict(x)
    assert max(worst_difference(run(tmp_path / "model.onnx", x), mixture).values()) < 1e-5


def test_a_list_of_one_model_is_that_model(exported, tmp_path):
    _, model, head = exported
    export([model], tmp_path / "model.onnx", outputs="scale_tril", calibration=RECALIBRATIONS[1])
    x = rows(7)
    normal = head.distribution(model.predict(x, verbose=0)).rescale(1.5)
    assert worst_difference(run(tmp_path / "model.onnx", x), normal)["scale_tril"] < 1e-5


def test_ensembles_that_cannot_be_written(tmp_path):
    (one, _), (other, _) = model_of("cholesky"), model_of("precision_cholesky")
    path = tmp_path / "model.onnx"
    for name in ("scale_tril", "y_pred"):
        with pytest.raises(ValueError, match=f"(?s)outputs=.*{name}.*ensemble.*stddev.*correl"):
            export([one, one], path, outputs=["mean", name])
    with pytest.raises(ValueError, match=r"predictions of model 0 are Cholesky.*1 are Precision"):
        export([one, other], path)
    inputs = keras.Input((5,))
    wider = keras.Model(inputs, layers.MultivariateNormalHead(4)(inputs))
    with pytest.raises(ValueError, match=r"inputs of model 0 are .*3.*model 1 are .*5"):
        export([one, wider], path)
    for wrong in ([], [one, "two"], "model.keras"):
        with pytest.raises(TypeError, match="a Keras model, a DeepEnsemble, or a list"):
            export(wrong, path)
    with pytest.raises(TypeError, match="must be None or a Recalibration.*received a str"):
        export([one, one], path, calibration="temperature")
    assert not list(tmp_path.iterdir())


class Wrapped(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.MultivariateNormalHead(2)

    def call(self, x):
        return self.head(x)


@pytest.mark.slow
def test_a_subclass_of_model(tmp_path):
    model = Wrapped()
    with pytest.raises(ValueError, match="has no weights yet"):
        export(model, tmp_path / "model.onnx")
    x = rows(7)
    model(x)
    export(model, tmp_path / "model.onnx")
    normal = model.head.distribution(model.predict(x, verbose=0))
    assert max(worst_difference(run(tmp_path / "model.onnx", x), normal).values()) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": ["mean", "variance"]}, r"outputs=.*variance.*must name.*stddev"),
        ({"outputs": ["mean", "mean"]}, "each once"),
        ({"outputs": []}, "must name"),
        ({"format": "tflite"}, r"format='tflite' is not known.*onnx.*saved_model"),
        ({"path": "model.pb"}, r"path=.*ends in \.onnx"),
        ({"path": "nowhere/model.onnx"}, "there is no folder"),
        ({"output": "b"}, "output='b' is not an output"),
        ({"covariance": "precision_cholesky"}, "MultivariateNormalHead"),
        ({"format": "saved_model", "path": "m", "opset": 18}, "opset=18"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message, tmp_path):
    if BACKEND == "torch" and arguments.get("format") == "saved_model":
        message = "torch backend"
    model, _ = model_of("cholesky")
    path = tmp_path / arguments.pop("path", "model.onnx")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        export(model, path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends write it")
def test_saved_model_from_torch_says_what_to_do_instead(tmp_path):
    with pytest.raises(ValueError, match="torch backend: .*KERAS_BACKEND=tensorflow"):
        export(model_of("cholesky")[0], tmp_path / "model", "saved_model")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'export needs onnx: pip install "keras-mvn\[export\]"'):
        export(model_of("cholesky")[0], tmp_path / "model.onnx")


def test_two_heads_need_a_choice(tmp_path):
    inputs = keras.Input((3,))
    heads = [layers.MultivariateNormalHead(2, name=name)(inputs) for name in "ab"]
    with pytest.raises(ValueError, match="several outputs"):
        export(keras.Model(inputs, heads), tmp_path / "model.onnx")


def test_a_folder_with_other_contents_is_left_alone(tmp_path):
    if BACKEND == "torch":
        pytest.skip("writes no folders")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="other contents"):
        export(model_of("cholesky")[0], tmp_path, "saved_model")
    assert (tmp_path / "thesis.tex").exists()


def test_a_saved_model_is_replaced(tmp_path):
    if BACKEND == "torch":
        pytest.skip("writes no folders")
    for outputs in ("mean", "stddev"):
        export(model_of("cholesky")[0], tmp_path / "model", "saved_model", outputs)
    assert list(run(tmp_path / "model", rows(2))) == ["stddev"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


class HalfWay(Onnx):
    """Fails in the middle of writing."""

    def write(self, serving, path, opset):
        path.write_text("half")
        raise OSError("disk full")


class Wrong(Onnx):
    """Translates wrongly, into `self.value`."""

    value = 7.0

    def write(self, serving, path, opset):
        path.write_text("whole")

    def run(self, serving, path, batches):
        return [
            {name: array + self.value for name, array in serving.on_numpy(rows).items()}
            for rows in batches
        ]


def test_an_error_leaves_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setitem(_export._FORMATS, "onnx", HalfWay())
    (tmp_path / "model.onnx").write_text("earlier")
    with pytest.raises(OSError, match="disk full"):
        export(model_of("cholesky")[0], tmp_path / "model.onnx")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["earlier"]


@pytest.mark.parametrize("value", [1e6, np.nan])
def test_a_wrong_translation_is_found(value, tmp_path, monkeypatch):
    wrong = Wrong()
    wrong.value = value
    monkeypatch.setitem(_export._FORMATS, "onnx", wrong)
    model, _ = model_of("cholesky")
    with pytest.raises(ValueError, match="does not reproduce the model"):
        export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    export(model, tmp_path / "model.onnx", verify=False)
    assert (tmp_path / "model.onnx").read_text() == "whole"


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 9, 33])
def test_inverse_and_cholesky_written_out(d, rng):
    a = np.tril(rng.normal(size=(5, d, d)), -1) / np.sqrt(d) + np.eye(d)
    expected = np.linalg.inv(a)
    covariance = a @ np.swapaxes(a, -1, -2)
    with written_out():
        inverse, factor = inverse_unit_lower(a), cholesky(covariance)
    np.testing.assert_allclose(inverse, expected, atol=1e-11)
    np.testing.assert_allclose(factor, a, atol=1e-11)
    assert not np.triu(factor, 1).any()


def test_written_out_does_not_cancel_where_the_power_series_does():
    d = 64
    a = np.tril(np.full((d, d), 0.5, "float32"), -1) + np.eye(d, dtype="float32")
    with written_out():
        inverse = inverse_unit_lower(a)
    np.testing.assert_allclose(inverse, np.linalg.inv(a.astype("float64")), atol=1e-6)


def test_written_out_ends_with_its_block(monkeypatch):
    called = []
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrix: called.append(matrix))
    with pytest.raises(KeyError), written_out():
        raise KeyError
    cholesky(np.eye(2))
    assert len(called) == 1


# --- mixtures ------------------------------------------------------------------------------------


def mixture_network(family, seed=0):
    keras.utils.set_random_seed(seed)
    head = layers.MultivariateMixtureHead(2, 3, degrees_of_freedom=family)
    head.adapt(np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 100.0])
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(6, "tanh"), head])
    model.compile("adam")
    return model, head


@pytest.mark.parametrize("family", [None, "constant"])
def test_a_mixture(family, tmp_path):
    model, head = mixture_network(family)
    outputs = ["mean", "covariance", "stddev", "correlation", *OF_A_MIXTURE, "y_pred"]
    export(model, tmp_path / "m.onnx", outputs=outputs, calibration=Temperature(1.5))
    x = np.random.default_rng(1).normal(size=(7, 4)).astype("float32")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    served = dict(zip(outputs, session.run(outputs, {"x": x}), strict=True))
    answer = head.distribution(model.predict(x, verbose=0)).rescale(1.5)
    for name in ("mean", "covariance", "stddev", "correlation"):
        np.testing.assert_allclose(served[name], getattr(answer, name), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(served["component_weights"].T, answer.weights, rtol=1e-4)
    for m, one in enumerate(answer.components):
        np.testing.assert_allclose(served["component_means"][:, m], one.mean, rtol=1e-4, atol=1e-4)
        of_component = served["component_covariances"][:, m]
        np.testing.assert_allclose(of_component, one.covariance, rtol=1e-3, atol=1e-3)


def test_an_ensemble_of_mixtures(tmp_path):
    models, heads = zip(*[mixture_network(None, seed) for seed in (0, 1)], strict=True)
    export(models, tmp_path / "m.onnx", calibration=Temperature(0.7), weights=[1.0, 3.0])
    x = np.random.default_rng(1).normal(size=(7, 4)).astype("float32")
    onnxruntime = pytest.importorskip("onnxruntime")
    mean, covariance = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": x})
    parts = [
        head.distribution(model.predict(x, verbose=0)).rescale(0.7)
        for model, head in zip(models, heads, strict=True)
    ]
    expected = Mixture(parts, [0.25, 0.75])
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(covariance, expected.covariance, rtol=1e-3, atol=1e-3)


def test_outputs_that_a_mixture_lacks_or_alone_has(tmp_path):
    with pytest.raises(ValueError, match=r"a mixture for each row, which has no \['scale_tril'\]"):
        export(mixture_network(None)[0], tmp_path / "m.onnx", outputs="scale_tril")
    with pytest.raises(ValueError, match=r"one distribution.*no \['component_means'\]"):
        export(model_of("cholesky")[0], tmp_path / "m.onnx", outputs="component_means")
