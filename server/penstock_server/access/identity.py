"""Who a caller is: names that it has proven, by a client certificate or by a token.

A name says by its beginning how it was proven, so that none of one kind passes for another: those of a certificate begin as
`transport.certificate` has it, those of a token are `jwt:ISSUER:SUBJECT` and `token:NAME`.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from penstock_server.access.settings import ANYBODY


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller.

    Attributes:
        names: what it has proven to be; the first one is shown and counted.
        expires_s: until when, in seconds since 1970.
    """

    names: tuple[str, ...]
    expires_s: float = inf

    @property
    def name(self) -> str:
        return self.names[0]


STRANGER: Final = Identity((ANYBODY,))
"""A caller that shows nothing."""
