import io
from dataclasses import replace

from rich.console import Console

from penstock_tools.calibration import table
from penstock_tools.calibration.report import ColumnCheck
from tests.tools.calibration.shifted_rows import CHECK


def printed(check, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(table.overview(check))
    return console.file.getvalue()


def test_alarms_months_and_columns_are_shown():
    lines = [" ".join(line.split()) for line in printed(CHECK).splitlines()]
    assert "amount<b> drifts 2026-01-02 00:00 2026-01-05 00:00 2026-01-10 00:00" in lines
    assert "city unknown values 2026-02-05 00:00 2026-02-06 00:00 still on" in lines
    assert "2026-01 4,000 1 amount<b>" in lines
    assert "amount<b> number 1 0.12 4,000 600 200" in lines
    assert "city string 1 never > 40,000 on before –" in lines
    assert "note: the sample looks shuffled" in lines


def test_what_is_not_known_is_left_out():
    shown = printed(
        replace(CHECK, alarms=(), months=(), indexes=(), columns=(ColumnCheck("x", "number", 0.1, 1.0, 0, ()),))
    )
    assert "month" not in shown.partition("looks")[2]
    assert "PSI 0.25" not in shown


def test_of_many_columns_the_first_are_shown():
    many = tuple(ColumnCheck(f"c{at}", "number", 0.1, 1.0, 0, ()) for at in range(table.MOST_COLUMNS + 3))
    shown = printed(replace(CHECK, columns=many, indexes=()))
    assert "and 3 more columns; --html FILE shows all" in shown
