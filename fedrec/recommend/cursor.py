"""Where the next page goes on: a signed note of what earlier pages showed, which the asker keeps. The server has none.

Items are noted by 5 bytes of a hash of their id, so a cursor outlives restarts and names nothing; that one of 20,000
items is taken for one of 2,000 shown ones happens to one cursor in 27,000, and then it is not shown.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError
from fedrec.recommend.shelf import Shelf

MAX_SHOWN = 2000
MAX_AGE_S = 86_400.0
_HASH_BYTES = 5
_OWNER_BYTES = 8
_MAC_BYTES = 16
_HEAD = struct.Struct(f">BI{_OWNER_BYTES}s")  # format, when it was made, whose it is
_FORMAT = 1
MAX_CHARACTERS = 4 * -(-(_HEAD.size + _HASH_BYTES * MAX_SHOWN + _MAC_BYTES) // 3)
_REMEDY = "ask for the first page, without a cursor"


@dataclass(frozen=True, repr=False)
class Cursor:
    """What earlier pages showed. Private.

    Attributes:
        shown: hashes of items, uint64, in the order of the pages.
        made: Unix seconds.
    """

    shown: NDArray[np.uint64]
    made: float

    def is_shown(self, shelf: Shelf) -> NDArray[np.bool_]:
        """Which codes earlier pages showed: `[items]`."""
        hashes = shelf.derive("cursor hashes", lambda: _hashes(shelf.item(code).id for code in range(len(shelf))))
        return np.isin(hashes, self.shown)


EMPTY = Cursor(np.zeros(0, np.uint64), 0.0)


def write_cursor(before: Cursor, items: Iterable[str], owner: str, now: float, key: bytes) -> str:
    """The cursor after a page, url-safe; "" if the pages together showed more than 2,000 items, where they end.

    Args:
        before: of the page before; EMPTY of the first.
        items: ids that this page showed.
        owner: whose list it is: user, session and whatever of the query may not change between pages. Only hashed.
        key: 32 secret bytes or more; all servers that answer for each other have the same.
    """
    shown = np.concatenate([before.shown, _hashes(items)])
    if len(shown) > MAX_SHOWN:
        return ""
    packed = shown.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - _HASH_BYTES :].tobytes()
    body = _HEAD.pack(_FORMAT, int(now), _owner(owner, key)) + packed
    return _text(body + _mac(body, key))


def read_cursor(text: str, owner: str, now: float, key: bytes, max_age_s: float = MAX_AGE_S) -> Cursor:
    """What a cursor says; EMPTY of "".

    Raises: DataError: it is damaged or forged, another's, or older than `max_age_s`.
    """
    if not text:
        return EMPTY
    body = _body(text, key)
    form, made, whose = _HEAD.unpack_from(body)
    if form != _FORMAT:
        raise DataError("cursor: of another version of fedrec", _REMEDY)
    if not hmac.compare_digest(whose, _owner(owner, key)):
        raise DataError("cursor: of another user, session or query", _REMEDY)
    if not made - 60 <= now <= made + max_age_s:
        raise DataError("cursor: expired", _REMEDY)
    rows = np.frombuffer(body, np.uint8, offset=_HEAD.size).reshape(-1, _HASH_BYTES)
    wide = np.zeros((len(rows), 8), np.uint8)
    wide[:, 8 - _HASH_BYTES :] = rows
    return Cursor(wide.view(">u8").ravel().astype(np.uint64), float(made))


def _body(text: str, key: bytes) -> bytes:
    """What was signed. Raises DataError."""
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if _text(raw) != text:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise DataError("cursor: not one of ours", _REMEDY) from error
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(body, key)) or len(body) < _HEAD.size:
        raise DataError("cursor: changed on its way, or signed with another key", _REMEDY)
    return body


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mac(body: bytes, key: bytes) -> bytes:
    if len(key) < 32:
        raise DataError("the key of cursors is shorter than 32 bytes", "make one with os.urandom(32)")
    return hmac.new(key, b"fedrec cursor" + body, hashlib.sha256).digest()[:_MAC_BYTES]


def _owner(owner: str, key: bytes) -> bytes:
    return hmac.new(key, b"fedrec cursor owner" + owner.encode(), hashlib.sha256).digest()[:_OWNER_BYTES]


def _hashes(items: Iterable[str]) -> NDArray[np.uint64]:
    return np.array(
        [int.from_bytes(hashlib.blake2b(item.encode(), digest_size=_HASH_BYTES).digest(), "big") for item in items],
        np.uint64,
    )
