"""Carries out actions: sends a request within bounds, or starts a command. It blocks, so the supervisor's loop never calls it.

Secrets are read from their file or variable each time, and what goes into states and logs is without them.
"""

import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.redirections import NoRedirection
from penstock_server.retraining.event import Event
from penstock_server.retraining.requests import HttpCall, Secrets, request_of
from penstock_server.retraining.settings import ActionSettings

TIMEOUT_S: Final = 10.0
MAX_REPLY_BYTES: Final = 1 << 16
COMMAND_S: Final = 6 * 3600.0
"""How long a command may run, unless its settings say otherwise."""
GRACE_S: Final = 10.0
"""How long a command may take to end once it was told to."""
_SHOWN: Final = 300
_HIDDEN: Final = "***"
_TOO_MANY_REQUESTS: Final = 429
_REQUEST_TIMEOUT: Final = 408
_SERVER_ERRORS: Final = 500


class ActionRefusedError(InvalidInputError):
    """The other side will not take the request however often it is sent."""


def secrets_of(action: ActionSettings, environment: Mapping[str, str] | None = None) -> Secrets:
    """The token and the secret of an action.

    Raises:
        InvalidInputError: a file cannot be read, or a variable is not set; names it.
    """
    where = os.environ if environment is None else environment
    return Secrets(
        _secret(action.token_file, action.token_env, where), _secret(action.secret_file, action.secret_env, where)
    )


def _secret(file: Path | None, variable: str, environment: Mapping[str, str]) -> str:
    if file is not None:
        try:
            return file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"the secret in {file} cannot be read: {error}") from error
    if variable and not environment.get(variable):
        raise InvalidInputError(f"the environment variable {variable} with a secret is not set")
    return environment[variable].strip() if variable else ""


def send(action: ActionSettings, event: Event, now_s: float, timeout_s: float = TIMEOUT_S) -> str:
    """Tells of an event by HTTP.

    Returns:
        What the other side answered, in a few words.

    Raises:
        RefusedError: it will not take it: a 4xx other than 408 and 429, or a redirection.
        UnavailableError: it did not answer, or with 408, 429 or 5xx; it may be tried again.
        InvalidInputError: a secret is missing.
    """
    secrets = secrets_of(action)
    return _without(secrets, lambda: _post(request_of(action, event, secrets, now_s), timeout_s))


def _without(secrets: Secrets, run: Callable[[], str]) -> str:
    """Runs it with secrets hidden in what it says."""
    try:
        return _hidden(run(), secrets)
    except (ActionRefusedError, UnavailableError, InvalidInputError) as error:
        raise type(error)(_hidden(str(error), secrets)) from None


def _hidden(text: str, secrets: Secrets) -> str:
    for one in (secrets.token, secrets.secret):
        text = text.replace(one, _HIDDEN) if one else text
    return text


def _post(call: HttpCall, timeout_s: float) -> str:
    request = urllib.request.Request(call.url, call.body, call.headers, method="POST")  # noqa: S310 - the settings allow https and http alone
    give_up_s = time.monotonic() + timeout_s
    try:
        with urllib.request.build_opener(NoRedirection).open(request, timeout=timeout_s) as reply:
            _read(reply, give_up_s)
            return f"{reply.status}"
    except urllib.error.HTTPError as error:
        if error.code == call.already:
            return f"{error.code}: it had this event already"
        told = f"it answers {error.code}{_shown(error, give_up_s)}"
        can_pass = error.code in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS) or error.code >= _SERVER_ERRORS
        raise (UnavailableError(told) if can_pass else ActionRefusedError(told)) from None
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"it does not answer: {getattr(error, 'reason', None) or error}") from error


def _read(reply: Any, give_up_s: float) -> bytes:
    """Up to `MAX_REPLY_BYTES` of a reply, as long as there is time."""
    content = b""
    while len(content) < MAX_REPLY_BYTES and time.monotonic() < give_up_s and (chunk := reply.read1(1 << 14)):
        content += chunk
    return content


def _shown(reply: Any, give_up_s: float) -> str:
    with suppress(OSError, HTTPException, ValueError):
        text = " ".join(_read(reply, give_up_s).decode("utf-8", "replace").split())
        return f": {''.join(filter(str.isprintable, text))[:_SHOWN]}" if text else ""
    return ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        is_good: with 0, in its time.
        detail: the end of what it wrote, or why it was ended.
    """

    is_good: bool
    detail: str


class Command:
    """A command that runs, in a process group of its own.

    Args:
        action: of kind "command".
        event: what it gets as JSON on standard input and in the environment.
        clock: seconds, which bound how long it may run.

    Raises:
        InvalidInputError: it cannot be started.
    """

    def __init__(self, action: ActionSettings, event: Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._limit_s = action.timeout_s or COMMAND_S
        self._told_s: float | None = None
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the command
        environment = {
            **os.environ,
            "PENSTOCK_EVENT": event.to_json().decode(),
            "PENSTOCK_EVENT_ID": event.id,
            "PENSTOCK_MODEL": event.model,
            "PENSTOCK_VERSION": event.version,
            "PENSTOCK_RULE": event.rule,
            "PENSTOCK_REASON": event.reason,
        }
        try:
            with tempfile.TemporaryFile() as given:
                # A file, since a pipe that nobody reads would hold up this thread.
                given.write(event.to_json())
                given.seek(0)
                self._process = subprocess.Popen(
                    action.command,
                    stdin=given,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            self._output.close()
            raise InvalidInputError(f"the command {action.command[0]!r} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> Ended | None:
        """How it ended; None while it runs. One that takes too long is told to end, and killed if it does not."""
        code = self._process.poll()
        if code is None:
            self._bound()
            return None
        told = self._tail()
        self._output.close()
        if self._told_s is not None:
            return Ended(False, f"it ran for more than {self._limit_s:g} s and was ended{told}")
        return Ended(code == 0, f"it ended with {code}{told}")

    def close(self) -> None:
        """Ends it with all processes that it started."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._output.close()

    def _bound(self) -> None:
        now_s = self._clock()
        if self._told_s is None:
            if now_s - self._began_s > self._limit_s:
                self._told_s = now_s
                self._signal(signal.SIGTERM)
        elif now_s - self._told_s > GRACE_S:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _tail(self) -> str:
        """The last line that it wrote, which says how it went: before it come its progress or a traceback."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _SHOWN))
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        text = " ".join(lines[-1].split()) if lines else ""
        return f": {''.join(filter(str.isprintable, text))}" if text else ""
