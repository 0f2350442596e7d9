"""Settings of which single models may have other values: a table of the settings file, and below it one for each model."""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

from penstock_server.errors import InvalidInputError

Settings = TypeVar("Settings")


def with_own(settings: Settings, own: Any) -> Settings:
    """The settings of one model: its own values in place of the others, and no further models; None keeps a value."""
    values = {each.name: value for each in fields(own) if (value := getattr(own, each.name)) is not None}
    changed: Any = replace(settings, models={}, **values)  # type: ignore[type-var]
    result: Settings = changed
    return result


def check_own(table: str, models: Iterable[str], of: Callable[[str], object]) -> None:
    """Checks the settings of each model, which `of` makes.

    Raises:
        InvalidInputError: a value is wrong; names it with the model, as in "batching.models.fraud.max_rows is 0".
    """
    for model in models:
        try:
            of(model)
        except InvalidInputError as error:
            raise InvalidInputError(f"{table}.models.{model}.{str(error).removeprefix(f'{table}.')}") from error
