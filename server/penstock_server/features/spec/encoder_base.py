"""What all encoders share: they make columns of numbers from a string column."""

import msgspec

from penstock_server.features.spec.step_base import Name


class EncoderBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="encode"):
    """An encoder makes `width` columns of numbers from a string column."""

    def names(self, column: str) -> tuple[Name, ...]:
        """The names of its columns."""
        raise NotImplementedError
