"""Remembers what each source wanted last, so that a restart while a registry is away serves as before.

Decides the file; who recalls and when is `combined_source.py`'s. What is remembered can be had again: a file that
cannot be read is passed over with a reason.
"""

from pathlib import Path

import msgspec

from penstock_server import atomic, paths
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import strict_json
from penstock_server.sources.source import Desired

_MAX_BYTES = 64 * 2**20


class _Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    desired: Desired
    format: int = strict_json.FORMAT


class Memory:
    """The last known states, one file a source."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        """Reads nothing yet.

        Args:
            cache_dir: Where they are kept; None is Penstock's cache folder.
        """
        self._folder = (cache_dir or paths.cache_dir()) / "desired"

    def recall(self, source: str) -> Desired | None:
        """What the source of this name wanted last; None if nothing is known.

        Raises:
            InvalidInputError: The file is damaged; what it held is lost.
        """
        path = self._path(source)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InvalidInputError(f"the last known state in {path} is too large to be one; it is ignored")
            remembered = strict_json.decode(path.read_bytes(), _Remembered)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInputError(f"the last known state in {path} cannot be read: {error.strerror}") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"the last known state in {path} is damaged and ignored: {error}") from error
        return remembered.desired

    def remember(self, source: str, desired: Desired) -> None:
        """Replaces what is known of the source, in one step.

        Raises:
            UnavailableError: It cannot be written; what was known before stays.
        """
        path = self._path(source)
        try:
            atomic.write(path, msgspec.json.encode(_Remembered(source=source, desired=desired)))
        except OSError as error:
            reason = error.strerror or error
            raise UnavailableError(f"the last known state cannot be written to {path}: {reason}") from error

    def _path(self, source: str) -> Path:
        return self._folder / f"{paths.file_name_for(source)}.json"
