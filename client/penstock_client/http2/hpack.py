"""Reads HPACK header blocks of a server that was told to keep no table of headers.

Such a block means the same wherever it comes, so `HeaderReader` decodes it once and looks it up afterwards. Writing needs no
more than literals, which `frames` has.

Source: RFC 7541; its appendices for the two tables.
"""

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
_KNOWN_LIMIT: Final = 1024


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


class HeaderReader:
    r"""Header blocks decoded, each once. Threads may share one.

    >>> HeaderReader().read(b"\x88\x00\x0bgrpc-status\x010")
    ((':status', '200'), ('grpc-status', '0'))

    Attributes:
        usual: the blocks that begin an answer as gRPC does, or that end one with success, as the connection found; the last
            say true. What is the same for every call need not be judged for every call.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Fields] = {}
        self.usual: dict[bytes, bool] = {}

    def read(self, block: bytes) -> Fields:
        """The fields of a block.

        Raises:
            ProtocolError: it is torn, or refers to the table that the server was told not to keep.
        """
        fields = self._known.get(block)
        if fields is None:
            fields = decoded(block)
            if len(self._known) >= _KNOWN_LIMIT:
                # Headers that differ each time, such as a date, must not fill the memory.
                self._known, self.usual = {}, {}
            self._known[block] = fields
        return fields


def decoded(block: bytes) -> Fields:
    """The fields of a block; see `HeaderReader.read`."""
    found: list[tuple[str, str]] = []
    at = 0
    try:
        while at < len(block):
            at = _field(block, at, found)
    except IndexError:
        raise ProtocolError("a header block is torn") from None
    return tuple(found)


def _field(block: bytes, at: int, found: list[tuple[str, str]]) -> int:
    """Reads one representation (RFC 7541, 6) and returns where the next begins."""
    first = block[at]
    if first & 0x80:
        index, at = _integer(block, at, 7)
        found.append(_static(index))
        return at
    if first & 0xE0 == 0x20:
        size, at = _integer(block, at, 5)
        if found:
            raise ProtocolError("a header block changes the table's size amidst its fields")
        if size:
            raise ProtocolError(f"the server keeps a header table of {size} bytes, and was told to keep none")
        return at
    # With a table of no bytes, a literal that is to be remembered is one like any other.
    index, at = _integer(block, at, 6 if first & 0x40 else 4)
    if index:
        name = _static(index)[0]
    else:
        name, at = _string(block, at)
    value, at = _string(block, at)
    found.append((name, value))
    return at


def _static(index: int) -> tuple[str, str]:
    if not 0 < index <= len(_STATIC):
        raise ProtocolError(f"a header block refers to entry {index} of a table that has {len(_STATIC)}")
    return _STATIC[index - 1]


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
