import platform

import pytest

from penstock_server.python import requirements

HERE = {"scikit-learn": "1.9.1", "numpy": "2.4.6", "xgboost": "3.1.0"}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(requirements, "_installed", HERE.get)


@pytest.mark.parametrize(
    ("needed", "found"),
    [
        ({}, None),
        ({"scikit-learn": "1.9.0", "numpy": "2.0.1"}, None),
        ({"catboost": "1.2.8"}, "it needs catboost, not installed on this server; run: pip install 'catboost==1.2.8'"),
    ],
)
def test_what_is_missing_is_named_with_the_command(needed, found):
    assert requirements.missing(needed) == found


def test_the_interpreter_counts_for_code_that_is_in_a_pickle(monkeypatch):
    monkeypatch.undo()
    assert requirements.missing({"python": "2.7.18"}) is None
    assert "published with 2.7.18" in requirements.differing({"python": "2.7.18"})
    assert requirements.differing({"python": platform.python_version()}) is None


@pytest.mark.parametrize(
    ("needed", "named"),
    [
        ({"scikit-learn": "1.9.0"}, None),
        ({"scikit-learn": "1.8.0"}, "scikit-learn 1.9.1 (published with 1.8.0)"),
        ({"numpy": "2.0.0"}, None),
        ({"numpy": "1.26.4"}, "numpy 2.4.6 (published with 1.26.4)"),
        ({"xgboost": "3.0.2"}, "xgboost 3.1.0 (published with 3.0.2)"),
        ({"catboost": "1.2.8"}, None),
    ],
)
def test_another_release_is_told_where_it_may_read_otherwise(needed, named):
    found = requirements.differing(needed)
    assert found is None if named is None else named in found and "any_version = true" in found
