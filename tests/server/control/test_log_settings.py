from typing import Any

import pytest

from penstock import inference_pb2 as pb
from penstock_server.control.log_settings import answer, level_of, reply_of
from penstock_server.errors import InvalidInputError, PenstockError, UnsupportedError
from penstock_server.log_setup import LEVEL_VARIABLE, LogLevel


def asked(**values: Any) -> pb.LogSettingsRequest:
    request = pb.LogSettingsRequest()
    for name, value in values.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(request.settings[name], kind, value)
    return request


@pytest.mark.parametrize(
    ("now", "given", "level"),
    [
        ("info", {}, "info"),
        ("info", {"log_verbose_level": 1}, "debug"),
        ("info", {"log_verbose_level": 0}, "info"),
        ("debug", {"log_verbose_level": 0}, "info"),
        ("debug", {"log_info": False}, "debug"),
        ("debug", {"log_info": False, "log_verbose_level": 0}, "warning"),
        ("info", {"log_info": False}, "warning"),
        ("info", {"log_info": False, "log_warning": False}, "error"),
        ("info", {"log_warning": False}, "info"),
        ("warning", {"log_info": True}, "info"),
        ("warning", {"log_warning": False}, "error"),
        ("error", {"log_warning": True}, "warning"),
        ("error", {"log_error": True, "log_file": "", "log_format": "ISO8601"}, "error"),
    ],
)
def test_switches_are_levels(now: LogLevel, given: dict[str, Any], level: LogLevel) -> None:
    assert level_of(asked(**given).settings, now) == level


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_is_shown_asks_for_what_is_there(level: LogLevel) -> None:
    assert level_of(reply_of(level).settings, "info") == level


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"log_error": False}, UnsupportedError, "errors are always logged"),
        ({"log_file": "/x"}, UnsupportedError, "log_file cannot be changed"),
        ({"log_format": "default"}, UnsupportedError, "log_format cannot be changed"),
        ({"log_info": 1}, InvalidInputError, "log_info is a uint32_param, expected a bool_param"),
        ({"log_verbose_level": True}, InvalidInputError, "expected a uint32_param"),
        ({"level": "debug"}, InvalidInputError, "unknown log setting 'level'; expected some of log_info, log_warning"),
    ],
)
def test_what_cannot_be_set_is_told_and_changes_nothing(
    given: dict[str, Any], error: type[PenstockError], said: str
) -> None:
    with pytest.raises(error, match=said):
        answer(asked(**given, log_warning=False).SerializeToString(), lambda _: pytest.fail("it was set"))


def test_an_answer_says_what_is_logged_from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "info")
    shown = pb.LogSettingsResponse.FromString(answer(b"", lambda _: pytest.fail("it was set")))
    assert shown == reply_of("info")
    body = asked(log_verbose_level=1).SerializeToString()
    shown = pb.LogSettingsResponse.FromString(answer(body, lambda level: monkeypatch.setenv(LEVEL_VARIABLE, level)))
    assert shown == reply_of("debug")
