from bench.conformance.table import markdown
from penstock_conformance.case import Answered, Case, Outcome, Result


def result(section, outcome):
    return Result(Case("x", section, "R.", "s", None, Answered()), outcome)


def test_each_server_has_a_column_and_each_section_a_row():
    own = [result("health", Outcome.PASSED), result("streams", Outcome.PASSED), result("streams", Outcome.FAILED)]
    other = [result("health", Outcome.FAILED), result("streams", Outcome.NOT_OFFERED)]
    versions = {"penstock": "", "other": "1.2", "none": "3"}
    assert markdown({"penstock": own, "other": other, "none": []}, versions).splitlines() == [
        "| section | penstock | other 1.2 | none 3 |",
        "|---|---|---|---|",
        "| health | 1 of 1 | 0 of 1 |  |",
        "| streams | 1 of 2 | not offered |  |",
        "| all | 2 of 3 | 0 of 1 (1 not offered) |  |",
    ]
