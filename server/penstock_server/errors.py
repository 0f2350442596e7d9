"""The errors, one class per meaning; only `transport.status` knows the gRPC codes that they become.

The text of an error reaches the caller. In one sentence it says what was expected and what came, and it shows no internals.
"""


class PenstockError(Exception):
    """The base of all errors that Penstock raises on purpose; every other exception reaches callers as an internal error."""


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
