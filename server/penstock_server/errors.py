"""What can go wrong, one class a meaning; `transport/status.py` alone knows the codes they become.

The text of an error reaches the caller: it says what was expected and what came, in one sentence, and never shows the
server's insides.
"""


class PenstockError(Exception):
    """The base of all that Penstock raises on purpose."""


class InvalidInputError(PenstockError):
    """The request, file or setting is wrong, and says what was expected."""


class NotFoundError(PenstockError):
    """No such model or version is served."""


class NotReadyError(PenstockError):
    """It is known but not loaded yet, or no longer."""


class OverloadedError(PenstockError):
    """The queue is full; trying again at once makes it worse."""


class DeadlinePassedError(PenstockError):
    """The caller's deadline passed before the answer was ready."""


class ModelFailedError(PenstockError):
    """The model raised; the cause is logged and kept from the caller."""


class UnavailableError(PenstockError):
    """A service that Penstock needs, such as the registry, does not answer."""


class UnsupportedError(PenstockError):
    """The method or form is not served."""


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's text: in onnx, pandas and skops a dump of what they read follows it."""
    return next((line.strip()[:300] for line in str(error).splitlines() if line.strip()), type(error).__name__)
