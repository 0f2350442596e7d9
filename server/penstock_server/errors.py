"""What can go wrong, one class per meaning; only `transport/status.py` knows the codes they become.

The text of an error reaches the caller. It says in one sentence what was expected and what came, and shows no internals.
"""


class PenstockError(Exception):
    """The base of all errors that Penstock raises on purpose; callers see one of no other class as internal."""


class InvalidInputError(PenstockError):
    """The request, file or setting is wrong."""


class NotFoundError(PenstockError):
    """No such model or version is served."""


class NotReadyError(PenstockError):
    """The model or version is known, but not loaded yet or no longer."""


class OverloadedError(PenstockError):
    """Too much waits already; a retry at once makes it worse."""


class DeadlinePassedError(PenstockError):
    """The caller's deadline passed before the answer was ready."""


class ModelFailedError(PenstockError):
    """The model raised; the cause is logged, and the caller does not see it."""


class UnavailableError(PenstockError):
    """A service that Penstock needs, such as the registry, does not answer."""


class UnsupportedError(PenstockError):
    """The method or form is not served."""


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's text: in onnx, pandas and skops a dump of what they read follows it."""
    return next((line.strip()[:300] for line in str(error).splitlines() if line.strip()), type(error).__name__)
