"""Reads HPACK header blocks, mostly those of a server that was told to keep no table of headers.

A block that neither reads nor changes such a table means the same wherever it comes: it is decoded once and looked up
afterwards, by all connections. A server keeps one of 4,096 bytes until it has said that it keeps none, and one that never
says so is understood too. Writing needs no more than literals, which `frames` has.

Source: RFC 7541; its appendices for the two tables.
"""

from collections import deque
from typing import Final

from penstock_client.http2.frames import ProtocolError

Fields = tuple[tuple[str, str], ...]
"""Names and values, in the order in which they came."""

_STATIC_FIELDS: Final = """
:authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200
:status=204 :status=206 :status=304 :status=400 :status=404 :status=500 accept-charset
accept-encoding=gzip,_deflate accept-language accept-ranges accept access-control-allow-origin age allow
authorization cache-control content-disposition content-encoding content-language content-length
content-location content-range content-type cookie date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards
proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_STATIC: Final = tuple(
    (name, value.replace("_", " ")) for name, _, value in (field.partition("=") for field in _STATIC_FIELDS.split())
)

_LENGTHS: Final = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6"
    "f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn"
    "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
"""The length of each byte's Huffman code, and of the end's, in base 36. The code is canonical: codes of one length follow one
another in the order of the bytes, so their lengths say all."""
_END: Final = 256
_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 4096
DEFAULT_TABLE_BYTES: Final = 4096
"""A server's table until it says otherwise, and the largest one that is allowed here."""
_ENTRY_BYTES: Final = 32
"""What an entry counts beside its texts."""


def _huffman_codes() -> dict[tuple[int, int], int]:
    """The byte of each code, by the code's length and bits."""
    codes, code, last = {}, 0, 0
    for length, symbol in sorted((int(digit, 36), symbol) for symbol, digit in enumerate(_LENGTHS)):
        code <<= length - last
        codes[length, code] = symbol
        code, last = code + 1, length
    return codes


_CODES: Final = _huffman_codes()
_LONGEST: Final = max(length for length, _ in _CODES)


class _Blocks:
    """Blocks that mean the same whenever they come, as long as the server's table is what it is.

    Attributes:
        fields: of each.
        usual: those that begin an answer as gRPC does, or that end one with success, which are true. What is the same for
            every call need not be judged for every call.
    """

    __slots__ = ("fields", "usual")

    def __init__(self) -> None:
        self.fields: dict[bytes, Fields] = {}
        self.usual: dict[bytes, bool] = {}

    def add(self, block: bytes, fields: Fields) -> None:
        if len(block) > _LONGEST_KNOWN:
            return
        if len(self.fields) >= _MOST_KNOWN:
            # Headers that differ each time, such as a date, must not fill the memory.
            self.fields.clear()
            self.usual.clear()
        self.fields[block] = fields


class KnownBlocks:
    """What the connections to one server have learnt of its header blocks. Threads may share it.

    Attributes:
        with_table: where the server may keep a table: blocks that have nothing to do with it.
        without_table: where it has said that it keeps none: all blocks.
    """

    def __init__(self) -> None:
        self.with_table = _Blocks()
        self.without_table = _Blocks()


class HeaderReader:
    r"""Reads the header blocks of one connection, all of them and in their order.

    >>> HeaderReader(KnownBlocks()).read(b"\x88\x00\x0bgrpc-status\x010")
    ((':status', '200'), ('grpc-status', '0'))

    Attributes:
        usual: of blocks that need no reading, whether they end an answer with success, or begin one.
    """

    __slots__ = ("_blocks", "_known", "_most_bytes", "_size_bytes", "_table", "usual")

    def __init__(self, known: KnownBlocks) -> None:
        self._known = known
        self._table: deque[tuple[str, str]] = deque()
        self._size_bytes = 0
        self._most_bytes = DEFAULT_TABLE_BYTES
        self._blocks = known.with_table
        self.usual = self._blocks.usual

    def read(self, block: bytes) -> Fields:
        """The fields of a block.

        Raises:
            ProtocolError: it is torn, or refers to what no table has.
        """
        fields = self._blocks.fields.get(block)
        return self._decoded(block) if fields is None else fields

    def learn(self, block: bytes, *, is_end: bool) -> None:
        """Has a block be looked up in `usual`, now that it is judged; unless it may mean something else next time."""
        if block in self._blocks.fields:
            self.usual[block] = is_end

    def _decoded(self, block: bytes) -> Fields:
        found: list[tuple[str, str]] = []
        at, had_table, is_alone = 0, self._most_bytes > 0, True
        try:
            while at < len(block):
                at, is_same = self._field(block, at, found)
                is_alone &= is_same
        except IndexError:
            raise ProtocolError("a header block is torn") from None
        fields = tuple(found)
        has_table = self._most_bytes > 0
        if had_table != has_table:
            self._blocks = self._known.with_table if has_table else self._known.without_table
            self.usual = self._blocks.usual
        elif is_alone or not has_table:
            self._blocks.add(block, fields)
        return fields

    def _field(self, block: bytes, at: int, found: list[tuple[str, str]]) -> tuple[int, bool]:
        """Reads one representation (RFC 7541, 6); returns where the next begins, and whether the table is left alone."""
        first = block[at]
        if first & 0x80:
            index, at = _integer(block, at, 7)
            found.append(self._entry(index))
            return at, index <= len(_STATIC)
        if first & 0xE0 == 0x20:
            size, at = _integer(block, at, 5)
            if found:
                raise ProtocolError("a header block changes the table's size amidst its fields")
            if size > DEFAULT_TABLE_BYTES:
                raise ProtocolError(f"the server keeps a header table of {size} bytes, and was told to keep none")
            self._most_bytes = size
            self._evict()
            return at, False
        is_kept = bool(first & 0x40)
        index, at = _integer(block, at, 6 if is_kept else 4)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        found.append((name, value))
        if is_kept:
            self._table.appendleft((name, value))
            self._size_bytes += _size_bytes(name, value)
            self._evict()
        return at, not is_kept and index <= len(_STATIC)

    def _entry(self, index: int) -> tuple[str, str]:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        place = index - len(_STATIC) - 1
        if not 0 <= place < len(self._table):
            has = len(_STATIC) + len(self._table)
            raise ProtocolError(f"a header block refers to entry {index} of a table that has {has}")
        return self._table[place]

    def _evict(self) -> None:
        while self._size_bytes > self._most_bytes:
            self._size_bytes -= _size_bytes(*self._table.pop())


def _size_bytes(name: str, value: str) -> int:
    """What an entry takes of the table; its texts are Latin-1."""
    return len(name) + len(value) + _ENTRY_BYTES


def _integer(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    limit = (1 << prefix_bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 28:
            raise ProtocolError("an integer in a header block is longer than 32 bits")


def _string(block: bytes, at: int) -> tuple[str, int]:
    is_huffman = block[at] & 0x80
    size, at = _integer(block, at, 7)
    end = at + size
    if end > len(block):
        raise ProtocolError("a text in a header block is torn")
    raw = block[at:end]
    return (_unpacked(raw) if is_huffman else raw).decode("latin-1"), end


def _unpacked(raw: bytes) -> bytes:
    """The bytes of a Huffman-coded text."""
    out = bytearray()
    code = length = 0
    for byte in raw:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                if symbol == _END:
                    raise ProtocolError("a text in a header block holds the code for its end")
                out.append(symbol)
                code = length = 0
            elif length >= _LONGEST:
                raise ProtocolError("a text in a header block holds no code")
    # The last byte is filled up with the first bits of the end's code, which are ones.
    if length > 7 or code != (1 << length) - 1:
        raise ProtocolError("a text in a header block ends within a code")
    return bytes(out)
