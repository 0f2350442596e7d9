"""The errors, one class per meaning; only `transport.status` knows the gRPC codes that they become.

The text of an error reaches the caller. In one sentence it says what was expected and what came, and it shows no internals.
"""

from typing import Final

_OUT_OF_MEMORY: Final = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Unable to allocate")
"""How onnxruntime and numpy say that there is not enough memory: onnxruntime has no error class of its own for it."""
_OUT_OF_DEVICE_MEMORY: Final = ("smaller than requested bytes", "out of memory", "ALLOC_FAILED")
"""How it says that there is not enough of a device's: over its limit; of CUDA and HIP; of their libraries."""


class PenstockError(Exception):
    """The base of all errors that Penstock raises on purpose; every other exception reaches callers as an internal error."""


class InvalidInputError(PenstockError):
    """The request, file or setting is wrong."""


class NotFoundError(PenstockError):
    """No such model or version is served."""


class NotReadyError(PenstockError):
    """The model or version is known, but not loaded yet or no longer."""


class StandbyError(NotReadyError):
    """The model is not in memory, and is loaded when it is asked for.

    Attributes:
        model: its name.
        retry_after_s: when a call may be worth another try, in seconds from now.
    """

    def __init__(self, text: str = "", model: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.model = model
        self.retry_after_s = retry_after_s


class OverloadedError(PenstockError):
    """Too much waits already; a retry at once makes it worse."""


class DeadlinePassedError(PenstockError):
    """The caller's deadline passed before the answer was ready."""


class ModelFailedError(PenstockError):
    """The model raised; the cause is logged, and the caller does not see it."""


class RefusedByModelError(ModelFailedError):
    """The model refuses these rows and says why, which the caller sees."""


class UnavailableError(PenstockError):
    """A service that Penstock needs, such as the registry, does not answer."""


class UnsupportedError(PenstockError):
    """The method or form is not served."""


class DeniedError(PenstockError):
    """The caller may not do this here."""


class UnauthenticatedError(PenstockError):
    """The caller is not known, or what it shows proves nothing."""


class LimitedError(PenstockError):
    """The caller calls more often than it may.

    Attributes:
        retry_after_s: when a call will be let through, in seconds from now.
    """

    def __init__(self, text: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's text: in onnx, pandas and skops a dump of what they read follows it."""
    return next((line.strip()[:300] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that memory could not be had."""
    while error is not None:
        if isinstance(error, MemoryError) or any(
            words in str(error) for words in (*_OUT_OF_MEMORY, *_OUT_OF_DEVICE_MEMORY)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
