import importlib

import pytest

import penstock_tools


def test_the_former_import_works_and_names_the_present_one() -> None:
    with pytest.warns(DeprecationWarning, match="from penstock_tools import publish_pipeline"):
        module = importlib.import_module("penstock_tools.pipelines.publishing")
    assert module.publish_pipeline is penstock_tools.publish_pipeline
