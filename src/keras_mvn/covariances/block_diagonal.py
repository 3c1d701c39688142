"""Block-diagonal covariance: independent groups of targets, each with its own structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.numeric import namespace, static_gather
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import _composed
from keras_mvn.covariances._composed import slices
from keras_mvn.covariances._lookup import CovarianceLike, get
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.moments import Moments

__all__ = ["BlockDiagonal"]

Blocks: TypeAlias = "Sequence[tuple[Sequence[int], CovarianceLike]]"


@final
@register
@dataclass(frozen=True)
class BlockDiagonal(Covariance):
    """Block-diagonal covariance of independent groups of targets, each with its own structure.

    The targets of a group need not be adjacent; their order within the group is the one that the
    block's structure uses. `shape_params` are those of the blocks, concatenated; the network emits
    the scales of all blocks, then the rest. Time and memory are the sums over the blocks.

    Args:
        blocks: pairs of target indices and a structure (or its name). Every target from 0 to d − 1
            must be in exactly one block. `BlockDiagonal.of` takes target names instead.

    Raises:
        ValueError: a target is in no block or in several, or a structure is unknown; when used,
            the number of targets is different.

    >>> structure = BlockDiagonal([([0, 2], "cholesky"), ([1], "diagonal")])
    >>> structure.event_size, structure.shape_size(3)
    (3, 1)

    """

    blocks: Blocks

    def __post_init__(self) -> None:
        try:
            pairs = [(indices, structure) for indices, structure in self.blocks]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"blocks={self.blocks!r} must be pairs (indices of targets, structure), such as "
                "[([0, 2], 'cholesky'), ([1], 'diagonal')]."
            ) from error
        blocks = tuple((_indices(indices), get(structure)) for indices, structure in pairs)
        covered = [i for indices, _ in blocks for i in indices]
        complete = blocks and sorted(covered) == list(range(len(covered)))
        if not complete or not all(indices for indices, _ in blocks):
            raise ValueError(
                f"blocks cover the targets {sorted(covered)}; every index from 0 to d − 1 must be "
                "in exactly one block, and no block may be empty."
            )
        for indices, structure in blocks:
            structure.require(len(indices))
        object.__setattr__(self, "blocks", blocks)

    @classmethod
    def of(
        cls, groups: Mapping[Sequence[str], CovarianceLike], target_names: Sequence[str]
    ) -> Self:
        """Create it from groups of target names: `{("x", "y"): "cholesky", ("t",): "diagonal"}`.

        Args:
            groups: mapping from groups of target names to structures (or their names).
            target_names: names of all targets, in the order of y.

        Raises:
            ValueError: a name is not among `target_names`, or one of these is in no group.

        >>> BlockDiagonal.of({("x", "y"): "cholesky", ("t",): "diagonal"}, ["x", "t", "y"]).blocks
        (((0, 2), Cholesky()), ((1,), Diagonal()))

        """
        names = list(target_names)
        grouped = [name for group in groups for name in _names(group)]
        if sorted(grouped) != sorted(names):
            raise ValueError(
                f"groups contain the targets {grouped}; each of target_names={names} must be in "
                "exactly one group."
            )
        return cls([([names.index(n) for n in _names(g)], s) for g, s in groups.items()])

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], Covariance]]:
        return ((_indices(indices), get(structure)) for indices, structure in self.blocks)

    @property
    def event_size(self) -> int:
        """d, the number of targets in all groups."""
        return sum(len(indices) for indices, _ in self)

    def shape_size(self, event_size: int) -> int:
        """Return the sum of the shape sizes of the blocks."""
        self.require(event_size)
        return sum(structure.shape_size(len(indices)) for indices, structure in self)

    def raw_size(self, event_size: int) -> int:
        """Return the sum of the raw sizes of the blocks."""
        self.require(event_size)
        return _composed.raw_size(self._sized)

    def scale_raw_size(self, event_size: int) -> int | None:
        """Return the sum over the blocks; None if one of them does not separate its scales."""
        return _composed.scale_raw_size(self._sized)

    @property
    def wire(self) -> Covariance:
        """A `BlockDiagonal` of the blocks' wire structures."""
        return BlockDiagonal([(indices, structure.wire) for indices, structure in self])

    # --- to the blocks and back ------------------------------------------------------------------

    @property
    def _order(self) -> np.ndarray:
        """The targets in the order of the blocks."""
        return np.array([i for indices, _ in self for i in indices], "int32")

    def _by_block(self, x: Tensor) -> list[Tensor]:
        """Split x (..., d) into one (..., m) for every block."""
        order = self._order
        return slices(static_gather(x, order, _inverse(order)), [len(i) for i, _ in self])

    def _by_target(self, parts: list[Tensor]) -> Tensor:
        """Join one (..., m) for every block into (..., d)."""
        order = self._order
        joined = namespace(*parts).concatenate(parts, axis=-1)
        return static_gather(joined, _inverse(order), order)

    def _shapes(self, shape_params: Tensor) -> list[Tensor]:
        return slices(shape_params, [s.shape_size(len(i)) for i, s in self])

    @property
    def _sized(self) -> _composed.Parts:
        return [(structure, len(indices)) for indices, structure in self]

    def _structures(self) -> list[Covariance]:
        return [structure for _, structure in self]

    def _join(self, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Join scale and shape_params of the blocks into those of all targets."""
        scales, shapes = zip(*parts, strict=True)
        return self._by_target(list(scales)), namespace(*shapes).concatenate(list(shapes), axis=-1)

    # --- the interface of `Covariance`, block by block -------------------------------------------

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Whiten block by block; half_log_det is the sum over the blocks."""
        parts = [
            structure.whiten_with_vjp(s, x)
            for structure, s, x in zip(
                self._structures(), self._shapes(shape_params), self._by_block(u), strict=True
            )
        ]
        return self._by_target([z for z, _ in parts]), _total(
            [half_log_det for _, half_log_det in parts]
        )

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whiten the observed targets block by block; half_log_det is the sum over the blocks."""
        parts = [
            structure.whiten_observed(*arguments)
            for structure, *arguments in zip(
                self._structures(),
                self._shapes(shape_params),
                self._by_block(u),
                self._by_block(observed),
                strict=True,
            )
        ]
        return self._by_target([z for z, _ in parts]), _total(
            [half_log_det for _, half_log_det in parts]
        )

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Color block by block."""
        return self._by_target(
            [
                structure.color(s, x)
                for structure, s, x in zip(
                    self._structures(), self._shapes(shape_params), self._by_block(z), strict=True
                )
            ]
        )

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the block matrix of the blocks' whitening matrices."""
        return self._dense(shape_params, lambda structure, s, n: structure.whitening_matrix(s, n))

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the block matrix of the blocks' coloring matrices."""
        return self._dense(shape_params, lambda structure, s, n: structure.coloring_matrix(s, n))

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the block matrix of the blocks' shape matrices."""
        return self._dense(shape_params, lambda structure, s, n: structure.shape_matrix(s, n))

    def _dense(
        self, shape_params: Tensor, matrix: Callable[[Covariance, Tensor, int], Tensor]
    ) -> Tensor:
        rows = []
        for (indices, structure), s in zip(self, self._shapes(shape_params), strict=True):
            of_target = np.full(self.event_size, -1, "int32")
            of_target[list(indices)] = np.arange(len(indices), dtype="int32")
            block = matrix(structure, s, len(indices))
            rows.append(static_gather(block, of_target, np.array(indices, "int32")))
        xp, order = namespace(*rows), self._order
        columns = xp.swapaxes(xp.concatenate(rows, axis=-2), -1, -2)
        return xp.swapaxes(static_gather(columns, _inverse(order), order), -1, -2)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the variances, computed block by block."""
        return self._by_target(
            [
                structure.variance(x, s)
                for structure, s, x in zip(
                    self._structures(),
                    self._shapes(shape_params),
                    self._by_block(scale),
                    strict=True,
                )
            ]
        )

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Constrain block by block."""
        self.require(event_size)
        raws = _composed.split_raw(raw, self._sized)
        return self._join(
            [s.constrain(part, len(i)) for (i, s), part in zip(self, raws, strict=True)]
        )

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Unconstrain block by block."""
        raws = [
            structure.unconstrain(x, s)
            for structure, s, x in zip(
                self._structures(), self._shapes(shape_params), self._by_block(scale), strict=True
            )
        ]
        return _composed.join_raw(raws, self._sized)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Relocate block by block."""
        return self._join(
            [
                structure.relocate(*arguments)
                for structure, *arguments in zip(
                    self._structures(),
                    self._by_block(scale),
                    self._shapes(shape_params),
                    self._by_block(origin_scale),
                    self._shapes(origin_shape),
                    strict=True,
                )
            ]
        )

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Fit each block to the covariance of its targets; other covariances are dropped."""
        self.require(covariance.shape[-1])
        return self._join(
            [s.from_covariance(covariance[..., list(i), :][..., list(i)]) for i, s in self]
        )

    def moments_rank(self, event_size: int) -> int | None:
        """Return the sum over the blocks; None if one of them needs the dense covariance."""
        ranks = [structure.moments_rank(len(indices)) for indices, structure in self]
        known = [rank for rank in ranks if rank is not None]
        return sum(known) if len(known) == len(ranks) else None

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Fit each block to the moments of its targets."""
        return self._join([s.from_moments(moments.of(list(i))) for i, s in self])


def _indices(indices: Any) -> tuple[int, ...]:
    return tuple(whole(i, "an index in blocks", "the position of a target", 0) for i in indices)


def _names(group: Sequence[str]) -> list[str]:
    return [group] if isinstance(group, str) else list(group)


def _inverse(order: np.ndarray) -> np.ndarray:
    return np.argsort(order).astype("int32")


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
