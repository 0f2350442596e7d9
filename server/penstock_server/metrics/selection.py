"""Which of the loaded versions a request names: the methods that answer for the whole server select alike."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from penstock_server.errors import NotFoundError


class LoadedVersion(Protocol):
    """A loaded version, whatever is told of it."""

    @property
    def model(self) -> str:
        """Its model's name."""

    @property
    def version(self) -> str:
        """Its number."""

    @property
    def roles(self) -> Sequence[str]:
        """Its roles in the plans in force."""


LoadedT = TypeVar("LoadedT", bound=LoadedVersion)


def selected(loaded: Iterable[LoadedT], model: str, version: str) -> tuple[LoadedT, ...]:
    """Those of a model and a version.

    Args:
        loaded: all that are loaded.
        model: a name; "" for all.
        version: a number or an alias such as "@champion"; "" for all.
    """
    return tuple(
        one
        for one in loaded
        if model in ("", one.model)
        and (version in ("", one.version) or (version.startswith("@") and version[1:] in one.roles))
    )


def not_loaded(model: str, version: str) -> NotFoundError:
    """The error of a request that names what is not loaded."""
    named = f"version {version!r}" if version else "version"
    return NotFoundError(f"no {named} of {f'model {model!r}' if model else 'any model'} is loaded")
