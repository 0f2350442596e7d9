"""What all steps share: parameters per column or one for all, and their effect on widths and names.

A step maps a matrix [rows, w] to [rows, w']. `blocks` checks whether it fits the w columns that reach it. The modules `steps_*`
define what each step does with the values.
"""

from typing import ClassVar, Literal, NamedTuple, TypeVar

import msgspec

Parameter = TypeVar("Parameter")

Unseen = Literal["code", "refuse"]
"""What a value that training never saw becomes: the code after the last, or the refusal of its row's request."""


class Name(NamedTuple):
    """The name of a matrix's column for people, and the meanings of its codes where it holds codes."""

    text: str
    codes: tuple[str, ...] = ()


class StepBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="step"):
    """A step that treats each column alone and gives one for each; subclasses override what differs."""

    PER_COLUMN: ClassVar[tuple[str, ...]] = ()
    """The fields that hold one parameter per column, or one for all; a field may be None."""

    def check(self, width: int) -> None:
        """Checks that the step fits `width` columns; raises `ValueError`."""
        for field in self.PER_COLUMN:
            values = getattr(self, field)
            if values is not None and len(values) not in {1, width}:
                raise ValueError(f"{field} has {len(values)} entries for {width} columns, expected {width} or 1")

    def width(self, width: int) -> int:
        """How many columns it gives for `width` columns, which it fits."""
        return width

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        """The names of the columns that it gives for columns of these names."""
        return tuple(Name(name.text) for name in names)


def tag_of(struct: msgspec.Struct) -> str:
    """The tag that a file has for a step, block or encoder of this type."""
    return str(struct.__struct_config__.tag)


def spread(values: tuple[Parameter, ...], width: int) -> tuple[Parameter, ...]:
    """The parameters of `width` columns; a single one is repeated for all."""
    return values * width if len(values) == 1 else values
