"""Checks of ensemble members: what they must have in common, and must not share."""

from __future__ import annotations

from typing import Any

import keras

from keras_mvn.layers._find_heads import heads
from keras_mvn.layers._head import Head

__all__ = ["checked_heads"]


def checked_heads(members: list[Any]) -> list[Head]:
    """Return the heads of these models, after checking that they can form one ensemble.

    Raises:
        TypeError: a member is not a Keras model.
        ValueError: a member is not compiled or has no head, members share variables or an
            optimizer, or heads differ.

    """
    found = [_checked_head(i, member) for i, member in enumerate(members)]
    first = found[0]
    for i, (member, head) in enumerate(zip(members, found, strict=True)):
        for other in members[:i]:
            _refuse_sharing(other, member)
        if (head.event_size, head.covariance, head.layout, head.target_names) != (
            first.event_size,
            first.covariance,
            first.layout,
            first.target_names,
        ):
            raise ValueError(
                f"The heads differ: {_described(first)} in member 0, and {_described(head)} in "
                f"member {i}. Their predictions cannot be mixed."
            )
    return found


def _described(head: Head) -> str:
    names = "" if head.target_names is None else f" of {list(head.target_names)}"
    return f"{head.covariance!r} for {head.event_size} targets{names} ({head.layout})"


def _checked_head(i: int, member: Any) -> Head:
    """The last head of a compiled model."""
    if not isinstance(member, keras.Model):
        raise TypeError(
            f"Members of an ensemble must be Keras models; member {i} is a {type(member).__name__}."
        )
    if not member.compiled:
        raise ValueError(
            f"Members of an ensemble must be compiled; member {i} is not: call "
            "model.compile(optimizer, loss=...), inside builder if there is one."
        )
    found = heads(member)
    if not found:
        raise ValueError(
            f"member {i}, the model {member.name!r}, has no MultivariateNormalHead among its "
            "layers, so its output cannot be read as multivariate normals."
        )
    return found[-1]


def _refuse_sharing(one: Any, other: Any) -> None:
    """Raise an error if two members share trainable variables or an optimizer."""
    mine = {id(variable): variable for variable in one.trainable_variables}
    shared = [mine[id(v)].path for v in other.trainable_variables if id(v) in mine]
    if shared or one.optimizer is other.optimizer:
        what = f"the variable {shared[0]!r}" if shared else "one optimizer"
        raise ValueError(
            f"Members share {what}. Create a new model, with new layers, head and optimizer, for "
            "each member, inside builder if there is one."
        )
