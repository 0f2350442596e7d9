"""What was found, a line each: why, and the pieces of a conversation in hexadecimal digits."""

from collections.abc import Iterator, Sequence
from pathlib import Path


def written(why: str, pieces: Sequence[bytes]) -> str:
    """A line."""
    return f"{' '.join(piece.hex() for piece in pieces)} # {why}"


def read(path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Why each line is there, and its pieces; empty lines and those that begin with # are passed over."""
    for line in path.read_text().splitlines():
        digits, _, why = line.partition(" # ")
        if digits and not digits.startswith("#"):
            yield why, [bytes.fromhex(piece) for piece in digits.split()]
