"""The kernels for GPUs, without one: Triton's and Pallas' interpreters, and their compilers.

Triton chooses between interpreter and compiler when it is imported, so its kernels run in a
process of their own. An interpreter takes programs that no compiler does (a variable of a loop
that changes its shape), so the kernels are compiled as well, for GPUs that need not be there.
"""

import concurrent.futures
import functools
import importlib.util
import multiprocessing
import os
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_mvn as kmvn
import oracle
from differentiation import EPSILON, precision, tensor
from keras_mvn.kernels.elliptical import supports

pytestmark = pytest.mark.widths

BACKEND = keras.backend.backend()
STRUCTURES = ("cholesky", "precision_cholesky")

# Rows that end within a program's, and fill more than one; d that are powers of two, and are not;
# of N less than a program writes at once, and more (d = 46 is the first).
SIZES = [(1, 1), (300, 1), (129, 2), (70, 5), (33, 8), (19, 17), (5, 46), (3, 128), (1, 130)]


class Problem:
    """Random parameters, targets and upstream gradients, as the kernels take them."""

    def __init__(self, rows, d, structure, dtype):
        rng = np.random.default_rng(1000 * rows + d)
        self.structure, self.dtype, self.d = structure, dtype, d
        k = d * (d - 1) // 2
        normal = functools.partial(self._rounded, rng.standard_normal)
        shape = 0.5 * normal((rows, k)) / np.sqrt(d)
        scale = np.exp(normal((rows, d)))
        self.y_pred = self._rounded(np.concatenate, [3 * normal((rows, d)), scale, shape], 1)
        self.y = normal((rows, d))
        self.squared_mahalanobis_bar, self.half_log_det_bar = normal(rows), normal(rows)
        self.mean_bar = normal((rows, d))

    def _rounded(self, make, *arguments):
        """In float64, what is a number of this dtype."""
        return make(*arguments).astype(self.dtype).astype("float64")

    @property
    def cholesky(self):
        return self.structure == "cholesky"

    def arrays(self, *names):
        return [getattr(self, name).astype(self.dtype) for name in names]


# --- the oracle: dense matrices, float64 ---------------------------------------------------------


def expected(problem, fixed_mean=False):
    """What the kernels should give, from Σ or Σ⁻¹ as they are defined."""
    d, (mean, scale) = problem.d, np.split(problem.y_pred[:, : 2 * problem.d], 2, axis=1)
    below = np.tril_indices(d, -1)
    factor = np.array([np.eye(d) + oracle.strict_lower(x, d) for x in problem.y_pred[:, 2 * d :]])
    transposed, residual = np.swapaxes(factor, 1, 2), (problem.y - mean)[:, :, None]
    outer = scale[:, :, None] * scale[:, None, :]
    q_bar, log_bar = problem.squared_mahalanobis_bar[:, None], problem.half_log_det_bar[:, None]
    if problem.cholesky:
        correlation = factor @ transposed
        covariance = outer * correlation
        solved = np.linalg.solve(covariance, residual)
        scaled = scale[:, :, None] * solved
        by_factor = -2 * scaled @ np.swapaxes(scaled, 1, 2) @ factor
        by_scale = -2 * solved * (correlation @ scaled)
        z = np.linalg.solve(scale[:, :, None] * factor, residual)
        variance = np.diagonal(covariance, axis1=1, axis2=2)
    else:
        precision_matrix = transposed @ factor / outer
        covariance = np.linalg.inv(precision_matrix)
        solved = precision_matrix @ residual
        u = residual / scale[:, :, None]
        by_factor = 2 * factor @ u @ np.swapaxes(u, 1, 2)
        by_scale = -2 * solved * u
        z, variance = factor @ u, None
    mean_bar = problem.mean_bar - (0 if fixed_mean else 2 * q_bar * solved[..., 0])
    bars = [
        mean_bar,
        q_bar * by_scale[..., 0] + log_bar / scale,
        q_bar * by_factor[:, below[0], below[1]],
    ]
    return {
        "squared_mahalanobis": np.sum(residual * solved, axis=(1, 2)),
        "half_log_det": 0.5 * np.linalg.slogdet(covariance)[1],
        "variance": variance,
        "z": z[..., 0],
        "v": scale * solved[..., 0],
        "y_pred_bar": np.concatenate(bars, axis=1),
    }


def assert_agrees(found, problem, fixed_mean=False):
    want = expected(problem, fixed_mean)
    for name, value in found.items():
        assert value.dtype == problem.dtype, name
        assert value.shape == want[name].shape, name
        # Sums over d columns, of the size of the largest number of the row.
        size = 1 + np.abs(want[name].reshape(len(want[name]), -1)).max(axis=1)
        error = np.abs(value - want[name]).reshape(len(size), -1).max(axis=1) / size
        assert error.max() < 60 * EPSILON[problem.dtype], (name, error.max())


# --- Triton --------------------------------------------------------------------------------------

with_triton = pytest.mark.skipif(
    BACKEND != "torch" or importlib.util.find_spec("triton") is None,
    reason="kernels for PyTorch, and needs Triton",
)


@pytest.fixture(scope="module")
def interpreter():
    """A process in which Triton interprets: interpreter(function, *arguments)."""
    with _process({"TRITON_INTERPRET": "1"}) as pool:
        yield lambda *call: pool.submit(*call).result(timeout=300)


def _process(environment):
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        pool.submit(os.getpid).result()  # it starts with the first call
    return pool


def _through_triton(problem, fixed_mean=False, mean_bar=True, apart=0):
    """Both passes; `apart`: how many columns stand between the rows of y_pred."""
    import torch

    from keras_mvn.kernels.elliptical import triton

    names = ("y", "squared_mahalanobis_bar", "half_log_det_bar", "mean_bar")
    y, *bars = (torch.tensor(x) for x in problem.arrays(*names))
    bars[2] = bars[2] if mean_bar else None
    (packed,) = (torch.tensor(x) for x in problem.arrays("y_pred"))
    rows, width = packed.shape
    y_pred = torch.cat([packed, packed.new_full((rows, apart), torch.nan)], 1)[:, :width]

    spare = []  # behind each result, a row that nothing may write to

    def empty(like):
        larger = like.new_full((rows + 1, *like.shape[1:]), torch.nan)
        spare.append(larger[rows])
        return larger[:rows]

    structure = STRUCTURES.index(problem.structure)
    made = {"squared_mahalanobis": empty(bars[0]), "half_log_det": empty(bars[0])}
    made["variance"] = empty(y) if problem.cholesky else None
    made.update(z=empty(y), v=empty(y))
    triton.forward(structure, y_pred, y, *made.values())
    made["y_pred_bar"] = empty(packed)
    kept = (made["z"], made["v"])
    triton.backward(structure, fixed_mean, y_pred, y, *kept, *bars, made["y_pred_bar"])
    assert all(row.isnan().all() for row in spare)
    return {name: x.numpy() for name, x in made.items() if x is not None}


def _loss_through_triton(problem, name):
    """Value and gradient of a loss whose operator has Triton's kernels on the CPU too."""
    import torch

    from keras_mvn.kernels.elliptical import torch as operator

    operator._forward.register_kernel("cpu")(operator._forward_on_gpu)
    operator._backward.register_kernel("cpu")(operator._backward_on_gpu)
    y, y_pred = (torch.tensor(x) for x in problem.arrays("y", "y_pred"))
    y.requires_grad_(), y_pred.requires_grad_()
    loss = getattr(kmvn.losses, name)(problem.structure, fused=True, reduction=None)
    value = loss(y, y_pred).mean()  # Keras' own mean is in float32
    value.backward()
    return value.item(), y.grad.numpy(), y_pred.grad.numpy()


@with_triton
@pytest.mark.slow
class TestTriton:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize(("rows", "d"), SIZES)
    def test_both_passes(self, interpreter, rows, d, structure, dtype):
        problem = Problem(rows, d, structure, dtype)
        assert_agrees(interpreter(_through_triton, problem), problem)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_fixed_mean(self, interpreter, structure):
        problem = Problem(9, 5, structure, "float32")
        assert_agrees(interpreter(_through_triton, problem, True), problem, fixed_mean=True)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_no_gradient_of_the_mean_itself(self, interpreter, structure):
        problem = Problem(9, 5, structure, "float32")
        problem.mean_bar[:] = 0.0
        assert_agrees(interpreter(_through_triton, problem, False, False), problem)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_rows_that_are_apart(self, interpreter, structure):
        problem = Problem(70, 5, structure, "float32")
        assert_agrees(interpreter(_through_triton, problem, False, True, 3), problem)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_infinite_targets_leave_those_before_them_alone(self, interpreter, structure):
        problem = Problem(3, 5, structure, "float64")
        before = expected(problem)["z"][:, :2]
        problem.y[:, 2] = np.inf
        found = interpreter(_through_triton, problem)
        np.testing.assert_allclose(found["z"][:, :2], before, rtol=1e-13)
        assert not np.isfinite(found["z"][:, 2:]).any()

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_no_rows(self, interpreter, structure):
        assert interpreter(_through_triton, Problem(0, 3, structure, "float32"))["z"].size == 0

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_the_likelihood(self, interpreter, structure):
        problem = Problem(70, 5, structure, "float64")
        problem.squared_mahalanobis_bar[:], problem.half_log_det_bar[:], problem.mean_bar[:] = (
            0.5,
            1.0,
            0.0,
        )
        want = expected(problem)
        rows = 0.5 * want["squared_mahalanobis"] + want["half_log_det"] + 2.5 * oracle.LOG_2PI
        found = interpreter(_loss_through_triton, problem, "NegativeLogLikelihood")
        np.testing.assert_allclose(found[0], rows.mean(), rtol=1e-13)
        np.testing.assert_allclose(found[1], -want["y_pred_bar"][:, :5] / 70, rtol=1e-11)
        np.testing.assert_allclose(found[2], want["y_pred_bar"] / 70, rtol=1e-11, atol=1e-14)

    def test_the_balanced_likelihood_has_a_fixed_mean_and_variances(self, interpreter):
        problem = Problem(70, 5, "cholesky", "float64")
        problem.squared_mahalanobis_bar[:], problem.half_log_det_bar[:] = 0.5, 1.0
        sigma = np.sqrt(expected(problem)["variance"])
        residual = problem.y - problem.y_pred[:, :5]
        problem.mean_bar = -3.0 * residual / (sigma * sigma.mean(axis=0))
        want = expected(problem, fixed_mean=True)["y_pred_bar"] / 70
        found = interpreter(_loss_through_triton, problem, "BalancedNegativeLogLikelihood")[2]
        # Keras' mean of σ over the batch is in float32, which the mean's gradient shows.
        np.testing.assert_allclose(found[:, :5], want[:, :5], rtol=1e-6)
        np.testing.assert_allclose(found[:, 5:], want[:, 5:], rtol=1e-11, atol=1e-14)


def _compiled(structure, d, dtype, architecture):
    """The instructions of both kernels, for a GPU that need not be there."""
    import triton as compiler
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from keras_mvn.kernels.elliptical import triton

    pointer = {"float32": "*fp32", "float64": "*fp64"}[dtype]
    columns = compiler.next_power_of_2(d)
    common = {"cholesky": structure == "cholesky", "d": d, "columns": columns, "tile": 4}
    nothing = {} if structure == "cholesky" else {"variance": None}
    made = []
    for kernel, constants, warps in (
        (triton._forward_kernel, nothing, 1),
        (triton._backward_kernel, {"places": 64, "fixed_mean": False}, 4),
    ):
        constants = common | constants
        types = dict.fromkeys(kernel.arg_names, pointer) | {"rows": "i32", "stride": "i32"}
        types |= dict.fromkeys(constants, "constexpr")
        values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, values)
        options = {"num_warps": warps, "enable_fp_fusion": True}
        target = GPUTarget("cuda", architecture, 32)
        made.append(compiler.compile(source, target=target, options=options).asm["ptx"])
    return made


@with_triton
@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_triton_compiles(dtype, architecture):
    with _process({"TRITON_INTERPRET": "0"}) as pool:
        for structure in STRUCTURES:
            for d in (1, 2, 33):
                forward, backward = pool.submit(
                    _compiled, structure, d, dtype, architecture
                ).result(timeout=300)
                assert "_forward_kernel" in forward
                assert "_backward_kernel" in backward
                # Sums over the columns stay within a warp.
                assert "shfl.sync" in forward or d < 33


@with_triton
class TestPyTorchDispatch:
    def packed(self, device="cuda", dtype="float32"):
        import torch

        return SimpleNamespace(dtype=getattr(torch, dtype), device=SimpleNamespace(type=device))

    def test_complete_rows_on_cuda(self):
        assert supports(self.packed()) is None

    @pytest.mark.parametrize(
        ("packed", "gaps", "reason"),
        [
            ({}, True, "marginalize"),
            ({"device": "xpu"}, False, "xpu"),
            ({"dtype": "bfloat16"}, False, "bfloat16"),
        ],
    )
    def test_what_it_declines(self, packed, gaps, reason):
        assert reason in supports(self.packed(**packed), gaps)


# --- Pallas --------------------------------------------------------------------------------------

with_pallas = pytest.mark.skipif(BACKEND != "jax", reason="kernels for JAX")


def _through_pallas(problem, fixed_mean=False, keeps=True):
    """Both passes; without z and v there is no second one."""
    from keras_mvn.kernels.elliptical import pallas

    names = ("y_pred", "y", "squared_mahalanobis_bar", "half_log_det_bar", "mean_bar")
    y_pred, y, *bars = (tensor(x, problem.dtype) for x in problem.arrays(*names))
    about = {"cholesky": problem.cholesky, "interpret": True}
    found = pallas.forward(y_pred, y, variance=problem.cholesky, keeps=keeps, **about)
    wanted = [
        "squared_mahalanobis",
        "half_log_det",
        *["variance"] * problem.cholesky,
        *["z", "v"] * keeps,
    ]
    made = dict(zip(wanted, found, strict=True))
    if keeps:
        kept = (made["z"], made["v"])
        made["y_pred_bar"] = pallas.backward(
            y_pred, y, *kept, *bars, fixed_mean=fixed_mean, **about
        )
    return {name: np.asarray(x) for name, x in made.items()}


@pytest.fixture
def gpu_machine(monkeypatch):
    """JAX says that there is a GPU, so that both kernels are traced."""
    import jax

    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    jax.clear_caches()


@with_pallas
class TestPallas:
    @pytest.mark.slow
    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize(("rows", "d"), SIZES)
    @pytest.mark.elsewhere(dtype=["float32"], d=[17, 130])
    def test_both_passes(self, rows, d, structure, dtype):
        problem = Problem(rows, d, structure, dtype)
        assert_agrees(_through_pallas(problem), problem)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_fixed_mean(self, structure):
        problem = Problem(9, 5, structure, "float32")
        assert_agrees(_through_pallas(problem, fixed_mean=True), problem, fixed_mean=True)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_values_alone(self, structure):
        problem = Problem(9, 5, structure, "float32")
        assert_agrees(_through_pallas(problem, keeps=False), problem)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_infinite_targets_leave_those_before_them_alone(self, structure):
        problem = Problem(3, 5, structure, "float32")
        before = expected(problem)["z"][:, :2]
        problem.y[:, 2] = np.inf
        found = _through_pallas(problem)
        np.testing.assert_allclose(found["z"][:, :2], before, rtol=1e-5)
        assert not np.isfinite(found["z"][:, 2:]).any()

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_no_rows(self, structure):
        assert _through_pallas(Problem(0, 3, structure, "float32"))["z"].size == 0


@with_pallas
class TestJAXDispatch:
    """`kernels.elliptical.jax` with a GPU that is not there."""

    def value(self, structure, loss="NegativeLogLikelihood"):
        loss = getattr(kmvn.losses, loss)(structure, fused=True)
        return lambda y_pred, y: loss(y, y_pred)

    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("loss", ["NegativeLogLikelihood", "BalancedNegativeLogLikelihood"])
    @pytest.mark.elsewhere(dtype=["float32"])
    def test_what_is_lowered_for_a_gpu_is_pallas(self, gpu_machine, structure, loss, dtype):
        import jax

        for d, kernels in ((1, 0), (2, 2), (33, 2)):
            traced = jax.jit(jax.value_and_grad(self.value(structure, loss))).trace(
                *(tensor(x, dtype) for x in Problem(9, d, structure, dtype).arrays("y_pred", "y"))
            )
            cuda = traced.lower(lowering_platforms=("cuda",)).as_text()
            cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
            # Forward and backward, as a module of Triton's in XLA's custom call; one target is
            # left to XLA everywhere.
            assert (cuda.count("xla.gpu.triton"), cpu.count("xla.gpu.triton")) == (kernels, 0)
            assert "custom_call @keras_mvn_elliptical" not in cuda
            assert cpu.count("custom_call @keras_mvn_elliptical") == kernels

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_what_runs_on_the_cpu_of_such_a_machine_is_native(self, gpu_machine, structure):
        import jax

        problem = Problem(9, 5, structure, "float32")
        problem.squared_mahalanobis_bar[:], problem.half_log_det_bar[:], problem.mean_bar[:] = (
            0.5,
            1.0,
            0.0,
        )
        y_pred, y = (tensor(x) for x in problem.arrays("y_pred", "y"))
        want = expected(problem)["y_pred_bar"] / 9
        for gradient in (jax.grad(self.value(structure)), jax.jit(jax.grad(self.value(structure)))):
            np.testing.assert_allclose(gradient(y_pred, y), want, rtol=2e-4, atol=2e-5)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_gradients_and_batches_through_pallas(self, monkeypatch, structure):
        """All layers over the kernel: custom_vjp, custom_vmap, custom_partitioning."""
        import jax

        from keras_mvn.kernels.elliptical import jax as operation
        from keras_mvn.kernels.elliptical import pallas

        calls = []

        def interpreted(kernel, *arrays, **settings):
            calls.append(kernel)
            return kernel(*arrays, **settings, interpret=True)

        forward, backward = pallas.forward, pallas.backward
        for kernel in (forward, backward):
            replaced = functools.partial(interpreted, kernel)
            monkeypatch.setattr(pallas, kernel.__name__, replaced)
        monkeypatch.setattr(operation, "_by_platform", lambda native, pallas, gaps, *x: pallas(*x))
        operation._by_rows.cache_clear()
        try:
            with precision("float64"):
                problem = Problem(24, 5, structure, "float64")
                problem.squared_mahalanobis_bar[:], problem.half_log_det_bar[:] = 0.5, 1.0
                problem.mean_bar[:] = 0.0
                y_pred, y = (
                    tensor(x, "float64").reshape(3, 8, -1) for x in problem.arrays("y_pred", "y")
                )
                found = jax.jit(jax.vmap(jax.grad(self.value(structure))))(y_pred, y)
                assert set(calls) == {forward, backward}
                want = expected(problem)["y_pred_bar"].reshape(found.shape) / 8
                np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-13)
        finally:
            operation._by_rows.cache_clear()

    def test_rows_with_gaps_take_the_reference(self, gpu_machine):
        import jax

        loss = kmvn.losses.NegativeLogLikelihood("cholesky", missing="marginalize")
        arrays = [tensor(x) for x in Problem(9, 5, "cholesky", "float32").arrays("y", "y_pred")]
        with kmvn.kernels.recording() as ran:
            jax.jit(loss).trace(*arrays).lower(lowering_platforms=("cuda",))
        assert [x.path for x in ran] == ["reference"]
        assert "marginalize" in ran[0].reason

    def test_a_jax_without_pallas_takes_the_reference(self, gpu_machine, monkeypatch):
        import jax

        from keras_mvn.kernels.elliptical import jax as operation

        monkeypatch.setattr(operation, "HAS_PALLAS", False)
        loss = kmvn.losses.NegativeLogLikelihood("cholesky")
        arrays = [tensor(x) for x in Problem(9, 5, "cholesky", "float32").arrays("y", "y_pred")]
        with kmvn.kernels.recording() as ran:
            jax.jit(loss).trace(*arrays)
        assert [x.path for x in ran] == ["reference"]
