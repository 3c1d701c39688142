"""Which rows train, stop early, calibrate and test."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np

from keras_mvn.tables.errors import TableError

__all__ = ["PARTS", "Split", "by_groups", "by_time", "random_split", "shares"]

PARTS = ("train", "validation", "calibration", "test")

SHARES = (0.60, 0.15, 0.10, 0.15)


@final
class Split(NamedTuple):
    """Numbers of rows, ascending, each in at most one part."""

    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def shares(calibrated: bool) -> tuple[float, ...]:
    """Of the parts; without a calibration its rows train."""
    train, validation, calibration, test = SHARES
    return SHARES if calibrated else (train + calibration, validation, 0.0, test)


def _sizes(rows: int, parts: tuple[float, ...]) -> np.ndarray:
    """Whole numbers of rows with this sum; what rounding leaves, trains."""
    sizes = np.array([round(share * rows) for share in parts])
    sizes[0] = rows - sizes[1:].sum()
    return sizes


def random_split(rows: int, parts: tuple[float, ...], seed: int) -> Split:
    """Rows drawn independently: right where they are independent of each other."""
    order = np.random.default_rng(seed).permutation(rows)
    return Split(*(np.sort(p) for p in np.split(order, np.cumsum(_sizes(rows, parts))[:-1])))


def by_groups(groups: np.ndarray, parts: tuple[float, ...], seed: int) -> Split:
    """Whole groups, so that test rows belong to groups that were never seen.

    Groups are dealt out in random order, each to the part that lacks most rows. Where no such deal
    comes near the shares, since groups are few or one is large, they are dealt out from the largest
    to the smallest. Not always: the parts would differ in the sizes of their groups, and groups of
    different sizes may be of different kinds.

    Args:
        groups: the group of each row, a code from 0.
        parts: shares of rows wanted; groups of different sizes meet them roughly.
        seed: of the order in which groups are dealt out.

    Raises:
        TableError: fewer groups than parts.

    """
    members = np.bincount(groups)
    wanted = np.array(parts)
    used = np.flatnonzero(members)
    if len(used) < np.count_nonzero(wanted):
        raise TableError(
            f"--group: there are {len(used)} groups; at least {np.count_nonzero(wanted)} are "
            "needed, one for each part of the split."
        )
    rng = np.random.default_rng(seed)
    for _ in range(DEALS):
        part_of, misplaced = _dealt(rng.permutation(used), members, wanted)
        if misplaced <= NEAR:
            break
    else:
        order = rng.permutation(used)
        largest_first = order[np.argsort(-members[order], kind="stable")]
        part_of, _ = _dealt(largest_first, members, wanted)
    return Split(*(np.flatnonzero(part_of[groups] == i) for i in range(len(parts))))


DEALS = 8
"""In random order, before the order is that of sizes."""

NEAR = 0.03
"""Share of rows in parts that have too many, up to which a deal is near the shares wanted."""


def _dealt(order: np.ndarray, members: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """The part of each group, no part empty, and the share of rows in parts that have too many."""
    rows = int(members.sum())
    lack = [float(share * rows) for share in wanted]
    empty = set(np.flatnonzero(wanted).tolist())
    part_of = np.full(len(members), -1)
    for left, group in zip(range(len(order), 0, -1), order.tolist(), strict=True):
        # As many groups left as empty parts: they are for these.
        part = max(sorted(empty) if left <= len(empty) else range(len(lack)), key=lack.__getitem__)
        part_of[group] = part
        empty.discard(part)
        lack[part] -= members[group]
    return part_of, sum(max(0.0, -missing) for missing in lack) / rows


def by_time(
    times: np.ndarray, parts: tuple[float, ...], shown: Callable[[float], str] = str
) -> Split:
    """In order of time: the first rows train, the last test; rows of one time stay together.

    Raises:
        TableError: too few different times, or rows without one.

    """
    if np.isnan(times).any():
        row = int(np.argmax(np.isnan(times)))
        raise TableError(f"--time: row {row + 1} of those with targets has no time.")
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    ends = np.cumsum(_sizes(len(times), parts))[:-1]
    ends = np.searchsorted(ordered, ordered[np.minimum(ends, len(times) - 1)], side="left")
    pieces = np.split(order, ends)
    if any(not len(piece) and share for piece, share in zip(pieces, parts, strict=True)):
        raise TableError(
            f"--time: {len(np.unique(times))} different times, the first {shown(ordered[0])}, "
            "cannot be cut into parts of the size wanted."
        )
    return Split(*(np.sort(piece) for piece in pieces))
