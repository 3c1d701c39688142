"""The output layer that predicts a multivariate normal for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Never, Self, final

import keras
import numpy as np
from keras import ops

from keras_mvn import covariances
from keras_mvn._core.checks import whole
from keras_mvn._core.dtypes import at_least_float32_policy
from keras_mvn._core.targets import column_labels, names_of_targets
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike, TargetSummary, moments
from keras_mvn.distributions._predicted import Predicted, predicted
from keras_mvn.kernels import Origin, parameters
from keras_mvn.layers import _degrees_of_freedom, _min_scale
from keras_mvn.layers._full_precision_dense import FullPrecisionDense, refuse_to_quantize
from keras_mvn.layers._head import Head
from keras_mvn.layers._mean_penalty import MeanPenalty
from keras_mvn.layers._shrinkage import auto_strength, checked_shrinkage
from keras_mvn.layers._time_distributed import outermost_time_distributed
from keras_mvn.layers._wire_version import check_wire_version
from keras_mvn.layouts import _tag

__all__ = ["MultivariateNormalHead"]

WIRE_VERSION = 1
"""Version of the layout [mean | scale | shape_params], so later releases can load older files."""

_ROWS, _RESOLUTION = "adapted_rows", "resolution"
"""Names of the number of adapted rows, and of the resolution, among the weights in a file."""

# Glorot uniform × 0.1: at the start, every predicted covariance is close to the adapted one.
_SMALL_GLOROT = {"scale": 0.01, "mode": "fan_avg", "distribution": "uniform"}


@final
@keras.saving.register_keras_serializable(package="keras_mvn.layers")
class MultivariateNormalHead(Head):
    """An output layer that predicts one multivariate normal per row, valid for any weights.

    It applies Dense → link → units of y. Its output is the flat tensor
    `[mean (d) | scale (d) | shape_params (k)]` of the covariance Σ = S R S, S = diag(scale), in the
    units of y, in at least float32 under any dtype policy; `Model.quantize` leaves it out. It works
    wherever Keras accepts a tensor.

    Call `adapt(y_train)` before training: the first prediction is then the mean and covariance
    of the data, and training does not depend on the units of y. Without it, the head starts at
    N(0, I) and expects standardized targets.

    Args:
        event_size: int, number of targets d.
        covariance: a structure from `keras_mvn.covariances`, or its name.
        target_names: d names, used in `distribution` and in messages.
        kernel_initializer: initializer of the mean's kernel.
        covariance_kernel_initializer: initializer of the covariance's kernel; None for Glorot
            uniform × 0.1.
        kernel_regularizer: regularizer of both kernels; a covariance overfits small tables quickly.
        use_bias: bool, whether mean and covariance have a bias.
        constant: the part of the covariance that does not depend on x, but is one trained set of
            numbers for all rows: None (no part), "shape" (scales depend on x, but how targets vary
            together does not) or "covariance" (all of it).
        stop_trunk: bool, whether the covariance's gradient stops at the head's input, so that the
            layers before it learn from the mean alone.
        shrinkage: strength λ of a penalty ½ λ Σ raw² per row on the contribution of x to the
            head's raw covariance outputs, which pulls each row's covariance toward the one that is
            best for all rows. None for no penalty; "auto" for λ = 16/n on the numbers that set
            scales and 16 k/n, at most 4, on the k others, where n is the number of rows counted by
            `adapt` (every step of a sequence is a row; without `adapt`, there is no penalty). A
            covariance overfits through its many shape parameters. The penalty is added during
            training (`model.losses`), without masked steps, and is not part of `val_loss`.
            docs/choosing.md has the measurements.
        degrees_of_freedom: None for a normal; otherwise the predictions are multivariate Student's
            t, for errors with tails, and the output has one more column, ν: a number above 2 that
            stays fixed, "constant" (one trained number for all rows, above 2) or "per_row" (a
            function of x, between 2 and 10⁴). Train with `losses.BalancedStudentT("learned")`. The
            part of x in ν per row is shrunk, as scales are: ½ λ raw² with λ = 16/n for "auto".
        min_scale: what the scales stay above, as `min_scale + (scale₀ - min_scale) · link(raw)`: a
            number or d numbers, in units of y; None for no floor; "auto" for what `adapt` finds:
            δ/√12 where the values of a target repeat on a grid of width δ (rounded values, counts),
            the standard deviation of a rounding error, and 1e-4 of the spread elsewhere. Without
            it, a likelihood rewards scales that collapse onto values that many rows share.
        centered: whether the targets are errors of another model, y − m(x), whose mean is to stay
            at 0: the head then learns their covariance alone.

    Input shape: (..., features); sequences are (batch, time, features), without
    `keras.layers.TimeDistributed`. Output shape: (..., 2 d + k), with one more column for
    `degrees_of_freedom`. Masks pass through.

    Raises:
        ValueError: event_size < 1, the structure is unknown, the number of names is wrong, the
            structure cannot separate the part that should be constant, or degrees_of_freedom or
            min_scale is none of the above.

    >>> import keras, numpy as np
    >>> head = MultivariateNormalHead(event_size=2, covariance="cholesky")
    >>> head.adapt(np.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0]]))
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "gelu"), head])
    >>> model.output_shape  # 2 means, 2 scales, 1 shape parameter
    (None, 5)

    """

    def __init__(
        self,
        event_size: int,
        covariance: CovarianceLike = DEFAULT,
        target_names: Sequence[str] | None = None,
        kernel_initializer: Any = "glorot_uniform",
        covariance_kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        use_bias: bool = True,
        constant: str | None = None,
        stop_trunk: bool = False,
        shrinkage: float | str | None = "auto",
        degrees_of_freedom: float | str | None = None,
        min_scale: Any = _min_scale.AUTO,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        check_wire_version(kwargs.pop("wire_version", WIRE_VERSION), WIRE_VERSION)
        super().__init__(dtype=at_least_float32_policy(kwargs.pop("dtype", None)), **kwargs)
        self.event_size = whole(event_size, "event_size", "the number of targets", 1)
        self.covariance = covariances.get(covariance)
        self.target_names = names_of_targets(target_names, self.event_size)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.covariance_kernel_initializer = keras.initializers.get(
            covariance_kernel_initializer or keras.initializers.VarianceScaling(**_SMALL_GLOROT)
        )
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.use_bias = use_bias
        self.constant = constant
        self.stop_trunk = bool(stop_trunk)
        self.shrinkage = checked_shrinkage(shrinkage)
        self.min_scale = _min_scale.checked(min_scale, self.event_size)
        self._adapted_rows = 0
        self._resolution = np.zeros(self.event_size)
        self._mean_penalty = MeanPenalty(self.shrinkage)
        self.degrees_of_freedom = _degrees_of_freedom.checked(degrees_of_freedom)
        self.supports_masking = True
        self._add_origin()
        self.centered = bool(centered)
        initializer = keras.initializers.Zeros() if centered else self.kernel_initializer
        self.mean_dense = self._dense(self.event_size, initializer, "mean")
        self.mean_dense.trainable = not self.centered
        self._add_raw_covariance()
        self.raw_degrees_of_freedom = (
            self.add_weight(name="raw_degrees_of_freedom", shape=(1,), initializer="zeros")
            if self.degrees_of_freedom == _degrees_of_freedom.CONSTANT
            else None
        )
        self.degrees_of_freedom_dense = (
            self._dense(1, self.covariance_kernel_initializer, "degrees_of_freedom")
            if self.degrees_of_freedom == _degrees_of_freedom.PER_ROW
            else None
        )

    def _add_raw_covariance(self) -> None:
        """Add the layer and the weight for raw covariance numbers: of x, and constant ones."""
        size = self.covariance.raw_size(self.event_size)
        of_x = self._raw_size_of_x(size)
        self.covariance_dense = (
            self._dense(of_x, self.covariance_kernel_initializer, "covariance") if of_x else None
        )
        self.constant_raw = (
            self.add_weight(name="constant_raw", shape=(size - of_x,), initializer="zeros")
            if of_x < size
            else None
        )

    def _raw_size_of_x(self, size: int) -> int:
        if self.constant is None:
            return size
        if self.constant == "covariance":
            return 0
        if self.constant != "shape":
            raise ValueError(
                f"constant={self.constant!r} is not known. Expected None, 'shape' or 'covariance'."
            )
        scales = self.covariance.scale_raw_size(self.event_size)
        if scales is None:
            raise ValueError(
                f"constant='shape' needs a structure with separate raw numbers for scales; "
                f"covariance={self.covariance.name!r} has none. Use 'cholesky', or "
                "constant='covariance'."
            )
        return scales

    def _dense(self, units: int, initializer: Any, name: str) -> FullPrecisionDense:
        return FullPrecisionDense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )

    def _add_origin(self) -> None:
        """Add the weights of the prediction at raw zeros: N(0, I) until `adapt`."""

        def constant(name: str, size: int, initializer: str) -> Any:
            return self.add_weight(
                name=name, shape=(size,), initializer=initializer, trainable=False
            )

        d, k = self.event_size, self.covariance.shape_size(self.event_size)
        self.origin_mean = constant("origin_mean", d, "zeros")
        self.origin_stddev = constant("origin_stddev", d, "ones")
        self.origin_scale = constant("origin_scale", d, "ones")
        self.origin_shape = constant("origin_shape", k, "zeros") if k else None
        self.scale_floor = None
        if self.min_scale is not None:  # files of 0.1.0 have no such weight
            self.scale_floor = constant("scale_floor", d, "zeros")
            self._set_floor(_min_scale.given(self.min_scale, d))

    def adapt(self, y: Any, residuals: Any = None, measured: Any = None) -> None:
        """Start the predictions at the mean and covariance of y, and store the units of y.

        Computed in float64, with NaN treated as missing. Call it before training; later, it would
        shift what the weights have learned. `mean = m + sd · raw`, `scale = s₀ · link(raw)` and
        `shape = N₀ + raw`, with (s₀, N₀) the structure's parameters of the covariance of y.

        Args:
            y: (rows, d) array, tensor or data frame; or a dataset or iterable of batches of y, or
                of (x, y) as passed to `fit`. If its length is unknown, as that of a generator, at
                most about four million rows are read. Or a `TargetSummary` from `summarize`.
            residuals: errors of a simpler model on rows that were not used to fit it, in the units
                of y and in any form accepted for y. The covariance then starts at theirs instead of
                that of y, most of which x may explain. For tables of a few hundred rows, where
                training stops before the covariance has moved that far; with scikit-learn,
                `y - cross_val_predict(RidgeCV(), x, y)`.
            measured: the targets as they were measured, if y is what another model leaves of them,
                in any form accepted for y: whether values repeat is then seen in these.

        Raises:
            ValueError: the number of targets is wrong, columns have other names or another order
                than `target_names`, values are infinite, a dataset is infinite, or there are fewer
                than two rows.

        Warns:
            UserWarning: targets are constant or perfectly collinear; the warning names them. They
                get a floor: a standard deviation of `1e-6·|mean|`, eigenvalues of the correlation
                of 1e-6.

        """
        columns = column_labels(y)
        if None not in (columns, self.target_names) and columns != list(self.target_names or ()):
            same = set(columns or ()) == set(self.target_names or ())
            raise ValueError(
                f"adapt received columns {columns}; the head's target_names are "
                f"{'the same in another order' if same else 'others'}, "
                f"{list(self.target_names or ())}. Select or reorder the columns of y, for adapt "
                "and for fit."
            )
        names = list(self.target_names or columns or ())
        rank = self.covariance.moments_rank(self.event_size)
        found = moments.estimate(y, self.event_size, names, rank)
        start = found
        if residuals is not None:
            start = moments.estimate(residuals, self.event_size, names, rank)
        self.target_names = names_of_targets(names or None, self.event_size)
        scale, shape_params = self.covariance.from_moments(start)
        nu = _degrees_of_freedom.start(self.degrees_of_freedom)
        scale = scale * np.sqrt(1.0 - 2.0 / nu)  # ν/(ν − 2) Σ is the covariance of a Student's t
        seen = found
        if measured is not None:
            seen = moments.estimate(measured, self.event_size, names, rank)
        self._resolution, floor = _min_scale.found_in(seen)
        if self.min_scale != _min_scale.AUTO:
            floor = _min_scale.given(self.min_scale, self.event_size)
        if (self.covariance.scale_raw_size(self.event_size) or self.event_size) < self.event_size:
            floor = scale * np.max(floor / scale)  # one number sets all scales
        scale = np.maximum(scale, _min_scale.START * floor)
        mean = np.zeros(self.event_size) if self.centered else found.mean
        self._set_origin(mean, found.stddev, scale, shape_params, found.rows)
        self._set_floor(floor)

    def summarize(self, y: Any) -> TargetSummary:
        """Return what `adapt` needs to know of y, to be merged with that of other parts.

        For data in pieces: `head.adapt(TargetSummary.merged(map(head.summarize, parts)))`; the
        parts may be summarized in other processes.

        Args:
            y: one part of the targets, in any form that `adapt` takes.

        Raises:
            ValueError: the number of targets is wrong, or values are infinite.

        """
        rank = self.covariance.moments_rank(self.event_size)
        return TargetSummary(self.event_size, rank).update(y)

    @property
    def resolution(self) -> Array:
        """The width δ of the grid of each target's values: (d,), found by `adapt`; 0 for none."""
        return self._resolution

    @property
    def shrinkage_strengths(self) -> tuple[float, float]:
        """The current λ for the raw numbers of x that set scales, and for all others.

        Both are 0 for None, and for "auto" until `adapt` has counted rows.
        """
        if self.shrinkage != "auto":
            return (float(self.shrinkage or 0.0),) * 2
        if not self._adapted_rows:
            return 0.0, 0.0
        size = self.covariance.raw_size(self.event_size)
        others = size - (self.covariance.scale_raw_size(self.event_size) or 0)
        return auto_strength(1, self._adapted_rows), auto_strength(others, self._adapted_rows)

    @property
    def ignores_inputs(self) -> bool:
        """Whether all rows get the same prediction: mean 0, and one covariance for all."""
        per_row = self.degrees_of_freedom == _degrees_of_freedom.PER_ROW
        return self.centered and self.constant == "covariance" and not per_row

    @property
    def mean_degrees_of_freedom(self) -> float:
        """ν of every row; infinite for a normal, NaN if it depends on the row."""
        return _degrees_of_freedom.in_numbers(self.degrees_of_freedom, self.raw_degrees_of_freedom)

    def each_component(self) -> Sequence[MultivariateNormalHead]:
        """Return the head itself."""
        return (self,)

    def constant_prediction(self) -> Array:
        """y_pred of a row of zeros, (1, size), of a built head: of any row if it ignores them."""
        features = int(self.mean_dense.kernel.shape[0])
        return np.asarray(ops.convert_to_numpy(self(np.zeros((1, features), "float32"))))

    @property
    def layout(self) -> str:
        """The layout of the output: "packed", or "student_t" with `degrees_of_freedom`."""
        return "packed" if self.degrees_of_freedom is None else "student_t"

    def _set_origin(
        self,
        mean: Array,
        stddev: Array,
        scale: Array,
        shape_params: Array,
        rows: int | Array = 0,
    ) -> None:
        self.origin_mean.assign(mean)
        self.origin_stddev.assign(stddev)
        self.origin_scale.assign(scale)
        self._adapted_rows = int(rows)
        if self.origin_shape is not None:
            self.origin_shape.assign(shape_params)

    def _set_floor(self, floor: Array) -> None:
        if self.scale_floor is not None:
            self.scale_floor.assign(floor)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the kernels for inputs of this shape."""
        self.mean_dense.build(input_shape)
        for dense in (self.covariance_dense, self.degrees_of_freedom_dense):
            if dense is not None:
                dense.build(input_shape)

    def call(self, inputs: Tensor, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Return y_pred: (..., features) → (..., 2 d + k).

        Raises:
            ValueError: on TensorFlow, `TimeDistributed` doesn't know the number of steps, or the
                head is called in a `tf.vectorized_map` with shrinkage.

        """
        steps = outermost_time_distributed()
        raw, bias = self._raw_and_bias(inputs) if training else (self._raw(inputs), None)
        y_pred, penalty = parameters(
            self.covariance,
            raw,
            self._origin(),
            training=training,
            bias=bias,
            strengths=self._strengths() if training else None,
        )
        if self.degrees_of_freedom is not None:
            nu, penalty = self._degrees_of_freedom_of(inputs, raw[..., :1], penalty, training)
            y_pred = ops.concatenate([y_pred, ops.cast(nu, y_pred.dtype)], axis=-1)
        if penalty is not None:
            self.add_loss(self._mean_penalty.of_call(penalty, mask, steps))
        written = _tag.Written(self.covariance, self.layout, self.origin_stddev)
        return _tag.tag(y_pred, written)

    def _degrees_of_freedom_of(
        self, inputs: Tensor, like: Tensor, penalty: Tensor | None, training: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return ν (..., 1), and the penalty with that of ν."""
        if self.raw_degrees_of_freedom is not None:
            return _degrees_of_freedom.constant(like, self.raw_degrees_of_freedom), penalty
        dense = self.degrees_of_freedom_dense
        if dense is None:
            return _degrees_of_freedom.fixed(like, float(self.degrees_of_freedom or 0)), penalty
        trunk = ops.stop_gradient(inputs) if self.stop_trunk else inputs
        raw = ops.cast(dense(trunk), self.compute_dtype)
        strength = self.shrinkage_strengths[0]
        if training and strength:
            of_x = raw - self._tensor(dense.bias) if self.use_bias else raw
            more = 0.5 * strength * of_x[..., 0] * of_x[..., 0]
            penalty = more if penalty is None else penalty + more
        return _degrees_of_freedom.bounded(raw), penalty

    def _origin(self) -> Origin:
        """Return the parameters of the prediction at raw zeros, as tensors."""
        shape_params = (
            ops.zeros((0,), self.compute_dtype)
            if self.origin_shape is None
            else self._tensor(self.origin_shape)
        )
        scale = self._tensor(self.origin_scale)
        floor = ops.zeros_like(scale)
        if self.scale_floor is not None:
            floor = self._tensor(self.scale_floor)
            scale = scale - floor
        return Origin(
            self._tensor(self.origin_mean),
            self._tensor(self.origin_stddev),
            scale,
            shape_params,
            floor,
        )

    def _raw(self, inputs: Tensor) -> Tensor:
        """Return raw means, then inputs of `constrain`: (..., features) → (..., d + m)."""
        # Keras' matmul turns float64 into float32 on PyTorch.
        parts = [ops.cast(layer(x), self.compute_dtype) for layer, x in self._fed(inputs)]
        if self.constant_raw is not None:
            parts.append(ops.ones_like(parts[0][..., :1]) * self.constant_raw)
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def _raw_and_bias(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two summands of `_raw`, of x and for all rows, by one product if possible.

        (..., features) → (..., d + m), (d + m,).
        """
        fed = self._fed(inputs)
        if self.stop_trunk:
            parts = [x @ self._joined([layer.kernel]) for layer, x in fed]
        else:
            parts = [inputs @ self._joined([layer.kernel for layer, _ in fed])]
        biases = [layer.bias if self.use_bias else np.zeros(layer.units) for layer, _ in fed]
        if self.constant_raw is not None:
            parts.append(ops.zeros_like(parts[0][..., :1]) * self.constant_raw)
            biases.append(self.constant_raw)
        raw = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
        return raw, self._joined(biases)

    def _fed(self, inputs: Tensor) -> list[tuple[FullPrecisionDense, Tensor]]:
        """Return the layers that x goes through, each with its input."""
        if self.covariance_dense is None:
            return [(self.mean_dense, inputs)]
        trunk = ops.stop_gradient(inputs) if self.stop_trunk else inputs
        return [(self.mean_dense, inputs), (self.covariance_dense, trunk)]

    def _tensor(self, weight: Any) -> Tensor:
        """Return a weight or an array as a tensor of the compute dtype.

        When nothing is compiled, each of Keras' conversions costs as much as a small operation.
        """
        if isinstance(weight, keras.Variable) and weight.dtype == self.compute_dtype:
            return weight.value
        return ops.cast(ops.convert_to_tensor(weight), self.compute_dtype)

    def _joined(self, weights: list[Any]) -> Tensor:
        tensors = [self._tensor(weight) for weight in weights]
        return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)

    def _strengths(self) -> Tensor | None:
        """Return λ of raw scale and shape, 0 where constant in x; None if nothing is shrunk."""
        dense, (of_scales, of_others) = self.covariance_dense, self.shrinkage_strengths
        if dense is None or max(of_scales, of_others) == 0:
            return None
        scales = self.covariance.scale_raw_size(self.event_size) or 0
        strengths = np.zeros(self.covariance.raw_size(self.event_size))
        strengths[:scales], strengths[scales : dense.units] = of_scales, of_others
        return ops.convert_to_tensor(strengths, self.compute_dtype)

    def quantize(self, *arguments: Any, **options: Any) -> Never:
        """Refuse: a head keeps its precision, in a quantized model too.

        Raises:
            NotImplementedError: always. `Model.quantize` quantizes the other layers, and warns.

        """
        refuse_to_quantize(f"MultivariateNormalHead {self.name!r}")

    def save_own_variables(self, store: Any) -> None:
        """Save the weights, and the row count of `adapt`, so that loaded weights shrink alike."""
        super().save_own_variables(store)
        store[_ROWS] = np.asarray(self._adapted_rows)
        store[_RESOLUTION] = self._resolution

    def load_own_variables(self, store: Any) -> None:
        """Load the weights and the row count that were saved by `save_own_variables`."""
        keys = set(store.keys())  # the only method used of Keras' store of a file
        weights = {key: store[key] for key in keys - {_ROWS, _RESOLUTION}}
        if _RESOLUTION not in keys and self.scale_floor is not None:
            weights[str(len(weights))] = np.zeros(self.event_size)  # weights of 0.1.0: no floor
        super().load_own_variables(weights)
        if _ROWS in keys:
            self._adapted_rows = int(np.asarray(store[_ROWS]))
        if _RESOLUTION in keys:
            self._resolution = np.asarray(store[_RESOLUTION])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: (..., features) → (..., 2 d + k)."""
        more = self.degrees_of_freedom is not None
        return (*input_shape[:-1], self.covariance.packed_size(self.event_size) + more)

    def distribution(self, y_pred: Any) -> Predicted:
        """Return predictions as a batch of distributions with this head's structure and names.

        With `degrees_of_freedom`, they are a `MultivariateStudentT`.

        Args:
            y_pred: (..., 2 d + k), output of `model.predict`.

        Raises:
            ValueError: y_pred has a different width.

        """
        return predicted(y_pred, self.covariance, self.layout, self.target_names)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and the results of `adapt`."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "event_size": self.event_size,
            "covariance": serialize(self.covariance),
            "target_names": self.target_names and list(self.target_names),
            "kernel_initializer": serialize(self.kernel_initializer),
            "covariance_kernel_initializer": serialize(self.covariance_kernel_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "use_bias": self.use_bias,
            "constant": self.constant,
            "stop_trunk": self.stop_trunk,
            "shrinkage": self.shrinkage,
            "degrees_of_freedom": self.degrees_of_freedom,
            "min_scale": self.min_scale,
            "centered": self.centered,
            "wire_version": WIRE_VERSION,
            "origin": self._origin_config(),
        }

    def _origin_config(self) -> dict[str, Any]:
        """Return the results of `adapt`; clones keep them, as they describe the data, not a run."""
        weights = {
            "mean": self.origin_mean,
            "stddev": self.origin_stddev,
            "scale": self.origin_scale,
            "shape_params": self.origin_shape,
        }
        values = {
            name: [] if weight is None else ops.convert_to_numpy(weight).tolist()
            for name, weight in weights.items()
        }
        floor = None
        if self.scale_floor is not None:
            floor = ops.convert_to_numpy(self.scale_floor).tolist()
        grid = {"floor": floor, "resolution": self._resolution.tolist()}
        return {**values, "rows": self._adapted_rows, **grid}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Create the head from its configuration, adapted as the original was."""
        config = dict(config)
        if config.pop("learn_degrees_of_freedom", False):  # the name in files of 0.1.0
            config["degrees_of_freedom"] = _degrees_of_freedom.CONSTANT
        config.setdefault("min_scale", None)  # files of 0.1.0 have no floor
        origin = config.pop("origin", None)
        head = cls(**config)
        head._restore_origin(origin or {})
        return head

    def _restore_origin(self, config: dict[str, Any]) -> None:
        """Restore the results of `adapt` from what `_origin_config` returned."""
        origin = dict(config)
        floor, grid = origin.pop("floor", None), origin.pop("resolution", None)
        if origin:
            self._set_origin(**{name: np.asarray(values) for name, values in origin.items()})
        if floor is not None:
            self._set_floor(np.asarray(floor))
        if grid is not None:
            self._resolution = np.asarray(grid)
