"""The output layer that predicts a mixture for each row, for targets with several modes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Never, Self, final

import keras
import numpy as np
from keras import ops

from keras_mvn._core.checks import whole
from keras_mvn._core.dtypes import at_least_float32_policy
from keras_mvn._core.fences import fences
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike, TargetSummary
from keras_mvn.distributions import Mixture
from keras_mvn.distributions._predicted import predicted
from keras_mvn.layers._clusters import clusters
from keras_mvn.layers._full_precision_dense import FullPrecisionDense, refuse_to_quantize
from keras_mvn.layers._head import Head
from keras_mvn.layers._wire_version import check_wire_version
from keras_mvn.layers.multivariate_normal_head import _SMALL_GLOROT, MultivariateNormalHead
from keras_mvn.layouts import _tag, get

__all__ = ["MultivariateMixtureHead"]

WIRE_VERSION = 1
"""Version of the layout [logits | component 1 | … | component n]."""

MOST_CLUSTERED = 20_000
"""Rows in which clusters are looked for, at most."""

FEWEST = 10
"""Rows of a cluster, at least, and at least 2 % of all."""

SHARE = 0.02

NARROWEST = 0.05
"""Smallest scale at which a component starts, in those of all rows: repeated rows have none."""


@final
@keras.saving.register_keras_serializable(package="keras_mvn.layers")
class MultivariateMixtureHead(Head):
    """An output layer that predicts a mixture of normals or Student's t, valid for any weights.

    For targets with several modes given x: a route on either side of an obstacle, a machine in one
    of two states. Its output is `[logits (n) | component 1 | … | component n]`; the weights are
    w = softmax(logits), and every component is what a `MultivariateNormalHead` writes. Train it
    with `losses.MixtureNegativeLogLikelihood(n, covariance)`.

    Call `adapt(y_train)` before training. Two components then start at two clusters of the rows
    (k-means, from a fixed seed). Of three and more, component 0 starts at the mean and the
    covariance of all rows, which catches what no cluster holds, and the others at clusters. Weights
    start at the shares of the clusters; if these are fewer than components, the rest start at all
    rows, moved by up to half a standard deviation so that they can part. Scales stay above a floor
    (`min_scale`), as a likelihood would reward components that collapse onto single rows.

    Args:
        event_size: int, number of targets d.
        n_components: int, number of components n.
        covariance: structure of every component, or its name.
        target_names: d names.
        use_bias: bool, whether means, covariances and weights have a bias.
        **kwargs: `kernel_initializer`, `covariance_kernel_initializer`, `kernel_regularizer`,
            `constant`, `stop_trunk`, `shrinkage`, `degrees_of_freedom`, `min_scale` of every
            component, as in `MultivariateNormalHead`; `name`, `dtype`.

    Input shape: (..., features). Output shape: (..., n (1 + 2 d + k)), with n more columns for
    `degrees_of_freedom`. Masks pass through.

    Raises:
        ValueError: n_components < 1, or as for `MultivariateNormalHead`.

    Source: Bishop, "Mixture density networks", Aston University (1994); Williams, "Using neural
    networks to model conditional multivariate densities", Neural Computation 8 (1996), for full
    covariances.

    >>> import keras, numpy as np
    >>> head = MultivariateMixtureHead(event_size=2, n_components=3)
    >>> model = keras.Sequential([keras.Input((4,)), head])
    >>> model.output_shape  # 3 logits, and 3 times 2 means, 2 scales, 1 shape parameter
    (None, 18)
    >>> mixture = head.distribution(model.predict(np.zeros((7, 4)), verbose=0))
    >>> mixture.batch_shape, mixture.weights.shape
    ((7,), (3, 7))

    """

    def __init__(
        self,
        event_size: int,
        n_components: int = 2,
        covariance: CovarianceLike = DEFAULT,
        target_names: Sequence[str] | None = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        check_wire_version(kwargs.pop("wire_version", WIRE_VERSION), WIRE_VERSION)
        policy = at_least_float32_policy(kwargs.pop("dtype", None))
        own = {name: kwargs.pop(name) for name in ("name", "trainable") if name in kwargs}
        super().__init__(dtype=policy, **own)
        self.n_components = whole(n_components, "n_components", "the number of components", 1)
        self.use_bias = bool(use_bias)
        self.components = [
            MultivariateNormalHead(
                event_size,
                covariance,
                target_names,
                use_bias=use_bias,
                dtype=policy,
                name=f"component_{i}",
                **kwargs,
            )
            for i in range(self.n_components)
        ]
        self.event_size, self.covariance = self._first.event_size, self._first.covariance
        self.degrees_of_freedom = self._first.degrees_of_freedom
        self.logits_dense = FullPrecisionDense(
            self.n_components,
            use_bias=use_bias,
            kernel_initializer=keras.initializers.VarianceScaling(**_SMALL_GLOROT),
            kernel_regularizer=self._first.kernel_regularizer,
            dtype=policy,
            name="logits",
        )
        self.origin_logits = self.add_weight(
            name="origin_logits", shape=(self.n_components,), initializer="zeros", trainable=False
        )
        self.supports_masking = True

    @property
    def _first(self) -> MultivariateNormalHead:
        return self.components[0]

    @property
    def target_names(self) -> Any:
        """The d names of the targets, or None."""
        return self._first.target_names

    @target_names.setter
    def target_names(self, names: Any) -> None:
        for head in self.components:
            head.target_names = names

    @property
    def resolution(self) -> Array:
        """The width δ of the grid of each target's values: (d,), found by `adapt`; 0 for none."""
        return self._first.resolution

    @property
    def mean_degrees_of_freedom(self) -> float:
        """The harmonic mean of the ν of the components; infinite for normals."""
        return 1.0 / float(np.mean([1.0 / one.mean_degrees_of_freedom for one in self.components]))

    def each_component(self) -> Sequence[MultivariateNormalHead]:
        """Return the heads of the components."""
        return self.components

    def constant_prediction(self) -> Array:
        """y_pred of a row of zeros, (1, size), of a built head."""
        features = int(self.logits_dense.kernel.shape[0])
        return np.asarray(ops.convert_to_numpy(self(np.zeros((1, features), "float32"))))

    @property
    def layout(self) -> str:
        """The layout of the output, such as "mixture_3" or "mixture_3_student_t"."""
        suffix = "" if self._first.layout == "packed" else f"_{self._first.layout}"
        return f"mixture_{self.n_components}{suffix}"

    def adapt(self, y: Any, residuals: Any = None, measured: Any = None) -> None:
        """Start the components at the moments and at clusters of y, and store the units of y.

        Computed in float64, with NaN treated as missing. Call it before training.

        Args:
            y: as in `MultivariateNormalHead.adapt`: array, data frame, dataset or `TargetSummary`.
            residuals: errors of a simpler model on rows that were not used to fit it: clusters are
                then those of the errors, which several modes given x cause, and not those of y,
                which may be due to x.
            measured: as in `MultivariateNormalHead.adapt`.

        Raises:
            ValueError: as in `MultivariateNormalHead.adapt`.

        Warns:
            UserWarning: as in `MultivariateNormalHead.adapt`.

        """
        first = self._first
        given = residuals if residuals is not None else y
        if not isinstance(given, TargetSummary) and not hasattr(given, "shape"):
            given = first.summarize(given)  # a dataset may be read only once
            y, residuals = (y, given) if residuals is not None else (given, None)
        first.adapt(y, residuals, measured)
        summary = given if isinstance(given, TargetSummary) else first.summarize(given)
        start = first.distribution(_at_origin(first))
        rows = _regular(summary.sample)
        labels = self._labels(rows, start)
        counts = np.bincount(labels, minlength=1)
        largest_first = np.argsort(-counts, kind="stable") if len(counts) > 1 else counts[:0]
        moved = self.components[self._of_all_rows :]
        logits = np.zeros(self.n_components)
        rng = np.random.default_rng(0)
        for head in self.components[1:]:
            head._restore_origin(first._origin_config())
            head.target_names = first.target_names
        for i, head in enumerate(moved):
            cluster = rows[labels == largest_first[i]] if i < len(largest_first) else rows[:0]
            if len(cluster) and (~np.isnan(cluster)).sum(axis=0).min() > 1:
                self._move(head, cluster, np.nanmean(cluster, axis=0) - np.nanmean(rows, axis=0))
                logits[i + self._of_all_rows] = np.log(len(cluster) / len(rows) * len(moved))
            elif head is not first:
                self._move(head, None, rng.uniform(-0.5, 0.5, self.event_size) * start.stddev)
        self.origin_logits.assign(logits)

    @property
    def _of_all_rows(self) -> int:
        """How many components start at all rows: with two components, both start at clusters."""
        return 0 if self.n_components == 2 else 1

    def summarize(self, y: Any) -> TargetSummary:
        """Return what `adapt` needs to know of y, as `MultivariateNormalHead.summarize` does."""
        return self._first.summarize(y)

    def _labels(self, rows: Array, start: Any) -> np.ndarray:
        """Return the cluster of each row, in units in which their covariance is I."""
        if self.n_components < 2 or not len(rows):
            return np.zeros(len(rows), np.int64)
        filled = np.where(np.isnan(rows), np.nanmean(rows, axis=0), rows)
        unit = (filled - filled.mean(axis=0)) @ np.linalg.inv(start.scale_tril).T
        fewest = max(FEWEST, int(SHARE * len(rows)))
        labels = clusters(unit, self.n_components - self._of_all_rows, fewest)
        return np.unique(labels, return_inverse=True)[1]

    @staticmethod
    def _move(head: MultivariateNormalHead, cluster: Array | None, by: Array) -> None:
        """Move a component's start, and give it the covariance of a cluster."""
        start = head._origin_config()
        mean = np.asarray(start["mean"]) + by
        if cluster is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of constant and collinear targets, in a part
                head.adapt(cluster)
            found = head._origin_config()
            least = NARROWEST * np.asarray(start["scale"])
            if start["floor"] is not None:
                least = np.maximum(least, 2.0 * np.asarray(start["floor"]))
            found["scale"] = np.maximum(found["scale"], least)
            start = {**found, **{name: start[name] for name in ("rows", "floor", "resolution")}}
        head._restore_origin({**start, "mean": mean})

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the kernels for inputs of this shape."""
        self.logits_dense.build(input_shape)
        for head in self.components:
            head.build(input_shape)

    def call(self, inputs: Tensor, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Return y_pred: (..., features) → (..., n (1 + 2 d + k))."""
        trunk = ops.stop_gradient(inputs) if self._first.stop_trunk else inputs
        logits = ops.cast(self.logits_dense(trunk), self.compute_dtype)
        logits = logits + ops.cast(self.origin_logits, self.compute_dtype)
        blocks = [head(inputs, training=training, mask=mask) for head in self.components]
        y_pred = ops.concatenate([logits, *blocks], axis=-1)
        written = _tag.Written(self.covariance, self.layout, self._first.origin_stddev)
        return _tag.tag(y_pred, written)

    def quantize(self, *arguments: Any, **options: Any) -> Never:
        """Refuse: a head keeps its precision, in a quantized model too.

        Raises:
            NotImplementedError: always.

        """
        refuse_to_quantize(f"MultivariateMixtureHead {self.name!r}")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: (..., features) → (..., n (1 + 2 d + k))."""
        width = self._first.compute_output_shape(input_shape)[-1]
        assert width is not None
        return (*input_shape[:-1], self.n_components * (1 + width))

    def distribution(self, y_pred: Any) -> Mixture:
        """Return predictions as a batch of mixtures with this head's structure and names.

        Args:
            y_pred: (..., n (1 + 2 d + k)), output of `model.predict`.

        Raises:
            ValueError: y_pred has a different width.

        """
        y_pred, layout = np.asarray(y_pred), get(self.layout)
        d, structure = self.event_size, self.covariance
        if layout.event_size(y_pred, structure, from_raw=False) != d:
            raise ValueError(
                f"y_pred has shape {y_pred.shape}; expected "
                f"{layout.expected(d, structure, from_raw=False)}."
            )
        logits, blocks = layout.split(y_pred)
        logits = np.moveaxis(np.asarray(logits, np.float64), -1, 0)
        weights = np.exp(logits - logits.max(axis=0))
        inner = self._first.layout
        return Mixture(
            [predicted(block, structure, inner, self.target_names) for block in blocks],
            weights / weights.sum(axis=0),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and the results of `adapt`."""
        config = self._first.get_config()
        origins = [head._origin_config() for head in self.components]
        left_out = ("name", "trainable", "dtype", "centered", "origin", "wire_version")
        return {
            **{name: value for name, value in config.items() if name not in left_out},
            **super().get_config(),
            "n_components": self.n_components,
            "wire_version": WIRE_VERSION,
            "origins": origins,
            "origin_logits": ops.convert_to_numpy(self.origin_logits).tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Create the head from its configuration, adapted as the original was."""
        config = dict(config)
        origins, logits = config.pop("origins", None), config.pop("origin_logits", None)
        head = cls(**config)
        for component, origin in zip(head.components, origins or (), strict=False):
            component._restore_origin(origin)
        if logits is not None:
            head.origin_logits.assign(np.asarray(logits))
        return head


def _at_origin(head: MultivariateNormalHead) -> Array:
    """Return y_pred of the start of an adapted head: (2 d + k,), with ν if there is one."""
    parts = [head.origin_mean, head.origin_scale, head.origin_shape]
    y_pred = [ops.convert_to_numpy(part) for part in parts if part is not None]
    more = [] if head.degrees_of_freedom is None else [np.array([10.0])]
    return np.concatenate([np.asarray(part, np.float64) for part in [*y_pred, *more]])


def _regular(rows: Array) -> Array:
    """Return up to 20 000 rows with something observed, without single values far from all."""
    step = max(1, -(-len(rows) // MOST_CLUSTERED))
    rows = fences(rows).regular(rows)[::step] if len(rows) else rows
    return rows[~np.isnan(rows).all(axis=1)]
