"""The kernels of time columns: int64 nanoseconds since 1970, and the parts of the calendar.

A float64 cannot hold nanoseconds of our days, so a time is loaded as two: whole days, and nanoseconds of the day. Both are
exact, and every part follows from them by whole numbers. The calendar is the Gregorian one, continued before its beginning.

Dates follow H. Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2021): years begin in March, so that the leap day is
the last, and 400 years have 146,097 days.
"""

from math import isnan, nan
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock
from penstock_server.kernels.base import inlined, kernel

_DAY_NS: Final = 86_400_000_000_000


@inlined
def load_time(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, entry: int) -> None:
    """Loads a block of a time column: its days, its nanoseconds of the day, and the seconds, rounded once."""
    first, column = program.words[entry], program.words[entry + 1]
    start = np.uint64(batch.times_begin + column * batch.rows + block.first)
    for row in range(block.rows):
        value = batch.times[start + np.uint64(row)]
        day = value // _DAY_NS
        is_missing = value == layout.MISSING_TIME
        registers[first, row] = nan if is_missing else np.float64(day)
        registers[first + 1, row] = nan if is_missing else np.float64(value - day * _DAY_NS)
        registers[first + 2, row] = nan if is_missing else np.float64(value) / 1e9


@kernel
def is_leap(year: int) -> Any:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


@kernel
def month_days(year: int, month: int) -> Any:
    """How many days a month has."""
    if month == 2:
        return 29 if is_leap(year) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@kernel
def year_month_day(days: int) -> Any:
    """The date of a day, counted from 1970-01-01."""
    shifted = days + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (1 if month <= 2 else 0), month, day


@kernel
def day_of_year(year: int, month: int, day: int) -> Any:
    """1 on the first of January."""
    before = (367 * month - 362) // 12
    if month > 2:
        before -= 1 if is_leap(year) else 2
    return before + day


@kernel
def week_of(days: int) -> Any:
    """The ISO week: that of the same week's Thursday, counted from the year's first Thursday."""
    year, month, day = year_month_day(days - (days + 3) % 7 + 3)
    return (day_of_year(year, month, day) - 1) // 7 + 1


@kernel
def of_date(part: int, days: Any) -> Any:
    """A part of the date, by its code; flags are 0 and 1."""
    if part == layout.WEEKDAY:
        return (days + 3) % 7
    if part == layout.WEEK:
        return week_of(days)
    year, month, day = year_month_day(days)
    if part == layout.YEAR:
        return year
    if part == layout.QUARTER:
        return (month + 2) // 3
    if part == layout.MONTH:
        return month
    if part == layout.DAY:
        return day
    if part == layout.DAY_OF_YEAR:
        return day_of_year(year, month, day)
    if part == layout.DAYS_IN_MONTH:
        return month_days(year, month)
    if part == layout.IS_MONTH_START:
        return 1 if day == 1 else 0
    if part == layout.IS_MONTH_END:
        return 1 if day == month_days(year, month) else 0
    if part == layout.IS_QUARTER_START:
        return 1 if day == 1 and month % 3 == 1 else 0
    if part == layout.IS_QUARTER_END:
        return 1 if day == month_days(year, month) and month % 3 == 0 else 0
    if part == layout.IS_YEAR_START:
        return 1 if day == 1 and month == 1 else 0
    if part == layout.IS_YEAR_END:
        return 1 if day == 31 and month == 12 else 0
    return 1 if is_leap(year) else 0


@kernel
def of_clock(part: int, nanoseconds: Any) -> Any:
    """A part of the time of day, by its code."""
    if part == layout.HOUR:
        return nanoseconds // 3_600_000_000_000
    if part == layout.MINUTE:
        return nanoseconds // 60_000_000_000 % 60
    if part == layout.SECOND:
        return nanoseconds // 1_000_000_000 % 60
    if part == layout.MICROSECOND:
        return nanoseconds // 1000 % 1_000_000
    return nanoseconds % 1000


@kernel
def calendar(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`CALENDAR`: a part of each time."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.CALENDAR]):
        days, nanoseconds, values = registers[words[entry]], registers[words[entry + 1]], registers[words[entry + 2]]
        part = words[entry + 3]
        is_clock = layout.HOUR <= part <= layout.NANOSECOND
        for row in range(count):
            if isnan(days[row]):
                values[row] = 0.0 if part >= layout.FIRST_FLAG else nan
            elif is_clock:
                values[row] = of_clock(part, np.int64(nanoseconds[row]))
            else:
                values[row] = of_date(part, np.int64(days[row]))
