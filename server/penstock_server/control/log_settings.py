"""`LogSettings`: shows what is logged, and has the whole server log something else, until it ends.

Triton's settings are switches for each kind of line, and Penstock has one level; so a switch that is on says that the lines of
its kind are written, with all that matter more.
"""

from collections.abc import Callable
from typing import Any, Final

from penstock import inference_pb2 as pb
from penstock_server.errors import InvalidInputError, UnsupportedError
from penstock_server.log_setup import LogLevel, log_level

_CHOICE: Final = "parameter_choice"
_KINDS: Final = {
    "log_info": "bool_param",
    "log_warning": "bool_param",
    "log_error": "bool_param",
    "log_verbose_level": "uint32_param",
    "log_file": "string_param",
    "log_format": "string_param",
}
_FORMAT: Final = "ISO8601"


def answer(body: bytes, set_level: Callable[[LogLevel], None]) -> bytes:
    """The `LogSettingsResponse` to a `LogSettingsRequest`, both encoded.

    Args:
        body: the request.
        set_level: has the server log from this level on.

    Raises:
        InvalidInputError: a setting is unknown, or of another type.
        UnsupportedError: it cannot be changed.
    """
    request = pb.LogSettingsRequest.FromString(body)
    if request.settings:
        set_level(level_of(request.settings, log_level()))
    return reply_of(log_level()).SerializeToString()


def level_of(settings: Any, now: LogLevel) -> LogLevel:
    """The level that settings ask for, by their names; what they leave out stays as it is now."""
    given = {name: _value(name, settings[name]) for name in settings}
    if given.get("log_error") is False:
        raise UnsupportedError("errors are always logged; log_error cannot be false")
    for name, only in (("log_file", ""), ("log_format", _FORMAT)):
        if given.get(name, only) != only:
            raise UnsupportedError(
                f"{name} cannot be changed by calls; lines go to standard error, in the form that --log-format says"
            )
    is_verbose = given.get("log_verbose_level", now == "debug")
    if is_verbose:
        return "debug"
    if given.get("log_info", now in {"debug", "info"}):
        return "info"
    return "warning" if given.get("log_warning", now != "error") else "error"


def reply_of(level: LogLevel) -> pb.LogSettingsResponse:
    """What is logged at a level, as Triton's clients read it."""
    reply = pb.LogSettingsResponse()
    reply.settings["log_file"].string_param = ""
    reply.settings["log_info"].bool_param = level in {"debug", "info"}
    reply.settings["log_warning"].bool_param = level != "error"
    reply.settings["log_error"].bool_param = True
    reply.settings["log_verbose_level"].uint32_param = int(level == "debug")
    reply.settings["log_format"].string_param = _FORMAT
    return reply


def _value(name: str, setting: Any) -> bool | int | str:
    kind = _KINDS.get(name)
    if kind is None:
        raise InvalidInputError(f"unknown log setting {name!r}; expected some of {', '.join(_KINDS)}")
    if setting.WhichOneof(_CHOICE) != kind:
        raise InvalidInputError(f"{name} is a {setting.WhichOneof(_CHOICE)}, expected a {kind}")
    value: bool | int | str = getattr(setting, kind)
    return value
