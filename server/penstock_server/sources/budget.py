"""What a version's files may still take while they are fetched: bytes, files and depth, counted as they come.

The names of files come from a store that nobody vouches for; they are checked here too, before anything is made of them.
"""

from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_server.models.version_folder import shown
from penstock_server.sources.settings import FetchSettings

MAX_DEPTH: Final = 16
MAX_NAME_BYTES: Final = 255


class Budget:
    """The rest of the bounds; raises `InvalidInputError` as soon as one is passed."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._files = 0
        self.bytes_left = settings.max_bytes

    def file(self, name: str, size_bytes: int = 0) -> None:
        """Counts a file that is about to be fetched; it may turn out larger than `size_bytes`, which are not counted."""
        check_name(name)
        self._files += 1
        if self._files > self._settings.max_files:
            raise InvalidInputError(
                f"it has more than {self._settings.max_files:,} files; fetch.max_files allows no more"
            )
        if size_bytes > self.bytes_left:
            raise self._too_large()

    def folder(self, name: str, depth: int) -> None:
        """Counts a folder as a file: an endless tree of empty ones is no version either."""
        if depth > MAX_DEPTH:
            raise InvalidInputError(f"its folders are nested deeper than {MAX_DEPTH}; expected a version's files")
        self.file(name)

    def add(self, size_bytes: int) -> None:
        """Counts bytes that came."""
        self.bytes_left -= size_bytes
        if self.bytes_left < 0:
            raise self._too_large()

    def _too_large(self) -> InvalidInputError:
        return InvalidInputError(
            f"its files take more than {self._settings.max_mib:,g} MiB; fetch.max_mib allows no more"
        )


def check_name(name: str) -> None:
    """Refuses a name that is not that of one file in one folder."""
    is_plain = name.isprintable() and name not in ("", ".", "..") and "/" not in name and "\\" not in name
    if not is_plain or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise InvalidInputError(f"it has a file named {shown(name)}; expected a plain name")
