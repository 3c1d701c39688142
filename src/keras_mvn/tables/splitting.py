"""Splits into rows for training, validation, calibration and testing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np

from keras_mvn.tables.errors import TableError

__all__ = [
    "PARTS",
    "Split",
    "by_groups",
    "by_time",
    "dealt",
    "random_split",
    "shares",
    "time_blocks",
]

PARTS = ("train", "validation", "calibration", "test")

SHARES = (0.60, 0.15, 0.10, 0.15)


@final
class Split(NamedTuple):
    """Row numbers of each part, ascending; a row is in at most one part."""

    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def shares(calibrated: bool, cross_fitted: bool = False) -> tuple[float, ...]:
    """Return the share of each part; without calibration, its rows are used for training.

    If cross-fitted, all rows but those for testing are, and their folds take turns.
    """
    train, validation, calibration, test = SHARES
    if cross_fitted:
        return (train + validation + calibration, 0.0, 0.0, test)
    return SHARES if calibrated else (train + calibration, validation, 0.0, test)


def _sizes(rows: int, parts: tuple[float, ...]) -> np.ndarray:
    """Whole numbers of rows that sum to `rows`; training gets the remainder."""
    sizes = np.array([round(share * rows) for share in parts])
    sizes[0] = rows - sizes[1:].sum()
    return sizes


def random_split(rows: int, parts: tuple[float, ...], seed: int) -> Split:
    """Split rows at random, which is appropriate if they are independent of each other."""
    order = np.random.default_rng(seed).permutation(rows)
    return Split(*(np.sort(p) for p in np.split(order, np.cumsum(_sizes(rows, parts))[:-1])))


def by_groups(groups: np.ndarray, parts: tuple[float, ...], seed: int) -> Split:
    """Split by whole groups, so that test rows belong to groups not seen in training.

    Groups are assigned in random order, each to the part that lacks the most rows. If no such
    assignment comes close to the requested shares, because groups are few or one is large, they are
    assigned from the largest to the smallest. This is not the default because the parts would then
    differ in the sizes of their groups, and groups of different sizes may differ in kind.

    Args:
        groups: (n,) int, the group of each row as a code from 0.
        parts: requested shares of rows; met only roughly if groups differ in size.
        seed: int, seed of the order in which groups are assigned.

    Raises:
        TableError: there are fewer groups than parts.

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
        part_of, misplaced = dealt(rng.permutation(used), members, wanted)
        if misplaced <= NEAR:
            break
    else:
        order = rng.permutation(used)
        largest_first = order[np.argsort(-members[order], kind="stable")]
        part_of, _ = dealt(largest_first, members, wanted)
    return Split(*(np.flatnonzero(part_of[groups] == i) for i in range(len(parts))))


DEALS = 8
"""Number of assignments tried in random order before assigning by size."""

NEAR = 0.03
"""Share of excess rows up to which an assignment is close enough to the requested shares."""


def dealt(order: np.ndarray, members: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """The part of each group, leaving no part empty, and the share of excess rows in all parts."""
    rows = int(members.sum())
    lack = [float(share * rows) for share in wanted]
    empty = set(np.flatnonzero(wanted).tolist())
    part_of = np.full(len(members), -1)
    for left, group in zip(range(len(order), 0, -1), order.tolist(), strict=True):
        # If only as many groups are left as there are empty parts, they go to these.
        part = max(sorted(empty) if left <= len(empty) else range(len(lack)), key=lack.__getitem__)
        part_of[group] = part
        empty.discard(part)
        lack[part] -= members[group]
    return part_of, sum(max(0.0, -missing) for missing in lack) / rows


def by_time(
    times: np.ndarray, parts: tuple[float, ...], shown: Callable[[float], str] = str
) -> Split:
    """Split by time: the first rows are for training, the last for testing; ties stay together.

    Raises:
        TableError: there are too few distinct times.

    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    ends = np.cumsum(_sizes(len(times), parts))[:-1]
    ends = np.searchsorted(ordered, ordered[np.minimum(ends, len(times) - 1)], side="left")
    pieces = np.split(order, ends)
    if any(not len(piece) and share for piece, share in zip(pieces, parts, strict=True)):
        raise TableError(
            f"--time: {len(np.unique(times))} different times, starting at {shown(ordered[0])}, "
            "cannot be split into parts of the requested sizes."
        )
    return Split(*(np.sort(piece) for piece in pieces))


def time_blocks(times: np.ndarray, rows: np.ndarray, blocks: int) -> np.ndarray:
    """Number consecutive blocks of rows in time, of nearly equal size; ties stay together.

    Args:
        times: (n,), the time of each row.
        rows: numbers of the rows to divide.
        blocks: number of blocks; there are fewer if there are fewer times.

    Returns:
        (n,) int, the block of each of the rows, and 0 for all others.

    """
    ordered = np.sort(times[rows])
    starts = ordered[np.arange(1, blocks) * len(rows) // blocks]
    found = np.zeros(len(times), np.int64)
    found[rows] = np.searchsorted(np.unique(starts), times[rows], side="right")
    return found
