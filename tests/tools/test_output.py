import pytest

from penstock_server.errors import UnavailableError
from penstock_tools import output


def test_a_report_is_written_or_the_reason_is_told(tmp_path):
    output.write(tmp_path / "page.html", "ü")
    assert (tmp_path / "page.html").read_bytes() == "ü".encode()
    with pytest.raises(UnavailableError, match=r"nowhere/page\.html cannot be written: No such file or directory"):
        output.write(tmp_path / "nowhere" / "page.html", "")


def test_json_is_indented_and_what_is_not_known_is_null():
    assert output.as_json({"a": None}) == '{\n  "a": null\n}'
