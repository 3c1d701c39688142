"""The networks of a fitted estimator, and what predicts with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_mvn._training.member import Member, members_of

__all__ = ["all_members", "networks_of"]


def networks_of(state: Mapping[str, Any]) -> list[Any]:
    """Return the Keras models among the attributes of an estimator; [] before `fit`."""
    if "ensemble_" in state:
        return list(state["ensemble_"].members)
    return [state["model_"]] if "model_" in state else []


def all_members(state: Mapping[str, Any]) -> list[Member]:
    """Return what predicts: its networks, over the predictions of `mean` if there is one."""
    return members_of(networks_of(state), state.get("_centers", ()))
