"""Layouts by their names."""

from __future__ import annotations

from keras_mvn.layouts._layouts import Layout, MeanLogVariance, Packed, Stacked, StudentT
from keras_mvn.layouts._mixture import MixtureLayout

__all__ = ["get"]

_LAYOUTS = {layout.name: layout for layout in (Packed(), StudentT(), Stacked(), MeanLogVariance())}


def get(name: str) -> Layout:
    """Return the layout with this name, such as "packed", or "mixture_3" for three components.

    Raises:
        ValueError: there is no layout with this name; the message lists the known ones.

    """
    found = _LAYOUTS.get(name) or MixtureLayout.named(name)
    if found is None:
        known = [*sorted(_LAYOUTS), "mixture_<n>", "mixture_<n>_student_t"]
        raise ValueError(f"layout={name!r} is not known. Expected one of {known}.")
    return found
