"""What every test of every package shares: hypothesis profiles, time limits, what a run does once."""

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# No profile has a deadline or a limit for drawing: a busy machine says nothing about the code under test.
_STEADY: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _STEADY)
# Every CI run draws the same examples, so that a change fails only for what it changed.
settings.register_profile("ci", _STEADY, derandomize=True, database=None, print_blob=True)
# The scheduled job looks further, at other examples in each run.
settings.register_profile("explore", _STEADY, derandomize=False, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "local"))

# hypothesis shrinks a failing example for up to five minutes. The limit for other tests would end it before it has
# shown the example.
PROPERTY_TIMEOUT_S: Final = 600


@pytest.hookimpl(trylast=True)  # after hypothesis has marked the tests that it runs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("hypothesis") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PROPERTY_TIMEOUT_S))
