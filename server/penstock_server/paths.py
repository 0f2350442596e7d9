"""Where Penstock keeps its files by default, and how a name from outside becomes a file's name.

There are two folders: the cache can be deleted, the data cannot. The functions create neither.
"""

import hashlib
import os
import re
from pathlib import Path

from penstock_server.errors import InvalidInputError


def cache_dir() -> Path:
    """The folder for fetched versions, compiled kernels and the last known state; what is deleted there is created again.

    Returns:
        `$PENSTOCK_CACHE_DIR`, else `$XDG_CACHE_HOME/penstock`, else `~/.cache/penstock`; it may not exist yet.

    Raises:
        InvalidInputError: none of them is set and the user has no home folder.
    """
    return _folder("PENSTOCK_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def data_dir() -> Path:
    """The folder for what nothing can restore, such as the embedded registry.

    Returns:
        `$PENSTOCK_DATA_DIR`, else `$XDG_DATA_HOME/penstock`, else `~/.local/share/penstock`; it may not exist yet.

    Raises:
        InvalidInputError: none of them is set and the user has no home folder.
    """
    return _folder("PENSTOCK_DATA_DIR", "XDG_DATA_HOME", ".local/share")


def file_name_for(text: str) -> str:
    """A file name for any text: different texts get different names, also where the file system ignores case.

    Returns:
        At most 57 letters, digits, `-` and `_`: the readable part of the text, and the start of its SHA-256.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:40]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:16]}"


def _folder(own: str, platform: str, below_home: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get(platform) or "")
    # The XDG specification says to ignore a relative path there.
    if not base.is_absolute():
        base = _home(own) / below_home
    return base / "penstock"


def _home(setting: str) -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise InvalidInputError(f"this user has no home folder; set {setting} to a folder to write to") from error
