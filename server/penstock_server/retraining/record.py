"""The calls for retraining of a model that servers on one registry share: a tag of the model. Pure.

All that holds a rule back (`rules`) is in it, so that single flight, cooldowns and the most calls of a day are those of all
servers together, whichever acts. A tag is short, so texts are cut, and the oldest calls go; but none of the last 24 hours.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_server.retraining.settings import DAY_S
from penstock_server.retraining.state import RetrainingCall

CALLS_TAG: Final = "penstock.retraining"
"""A tag of the model: its calls, the latest last."""
LEASE_TAG: Final = "penstock.retraining.controller"
"""A tag of the model: who acts on its rules."""
MAX_TAG_BYTES: Final = 4900
"""MLflow 2 takes 5,000."""
MAX_TEXT: Final = 160

_calls: Final = msgspec.json.Decoder(tuple[RetrainingCall, ...])


def read_calls(text: str) -> tuple[RetrainingCall, ...]:
    """The calls in the tag; none where there is no tag, "".

    Raises:
        InvalidInputError: it holds something else.
    """
    try:
        return _calls.decode(text) if text else ()
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidInputError(f"the model's tag '{CALLS_TAG}' is no record of calls: {str(error)[:100]}") from error


def write_calls(calls: Sequence[RetrainingCall], now_s: float, max_bytes: float = MAX_TAG_BYTES) -> str:
    """The tag's text, "" for none: all calls that are open or of the last 24 hours, and older ones as far as there is room.

    Raises:
        InvalidInputError: those do not fit.
    """
    short = [_short(call) for call in calls]
    for first in range(len(short)):
        text = msgspec.json.encode(short[first:]).decode()
        if len(text.encode()) <= max_bytes:
            return text
        if short[first].is_open or now_s - short[first].at_s < DAY_S:
            raise InvalidInputError(
                f"the calls of 24 hours do not fit into the model's tag '{CALLS_TAG}', which has room for {max_bytes:,} bytes; "
                "set a lower retraining.per_day"
            )
    return ""


def _short(call: RetrainingCall) -> RetrainingCall:
    return msgspec.structs.replace(
        call,
        identity=call.identity[:MAX_TEXT],
        reason=call.reason[:MAX_TEXT],
        # What an ended call knew tells nobody anything any more.
        known=call.known if call.is_open else (),
        detail=call.detail[-MAX_TEXT:],
    )
