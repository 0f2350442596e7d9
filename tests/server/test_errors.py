import pytest

from penstock_server.errors import first_line


@pytest.mark.parametrize(
    ("text", "line"),
    [("bad node\ngraph {", "bad node"), ("\n  bad node  \n", "bad node"), ("", "ValueError"), ("x" * 1000, "x" * 300)],
)
def test_of_a_foreign_error_the_first_line_is_shown(text, line):
    assert first_line(ValueError(text)) == line
