"""Text features of items that came after the catalogue, so that a restart need not read their texts again."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from sqlalchemy import select

from fedrec.database import Database
from fedrec.recommend.live_model import Floats
from fedrec_client.serving.store.columns import chunks, upsert
from fedrec_client.serving.store.tables import VECTORS

_V = VECTORS.c
_MANY = 5000


class VectorBook:
    """A cache by what was read, and by what read it: a text that has changed is another one.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Floats]:
        """Those that are there, float32 `[width]` each."""
        found: dict[bytes, Floats] = {}
        wanted = select(_V.key, _V.content).where(_V.tenant == self._tenant)
        if len(keys) >= _MANY:  # one pass over all is faster than a search for each
            asked = set(keys)
            with self._database.begin() as connection:
                for rows in connection.execute(wanted).partitions(_MANY):
                    found |= {key: np.frombuffer(content, "<f4") for key, content in rows if key in asked}
            return found
        for some in chunks(keys):
            with self._database.begin() as connection:
                rows = connection.execute(wanted.where(_V.key.in_(some))).all()
            found |= {key: np.frombuffer(content, "<f4") for key, content in rows}
        return found

    def put(self, keys: Sequence[bytes], vectors: Floats) -> None:
        """Keep them."""
        rows = [
            {"tenant": self._tenant, "key": key, "content": vector.astype("<f4").tobytes()}
            for key, vector in zip(keys, vectors, strict=True)
        ]
        for some in chunks(rows):
            with self._database.write() as connection:
                upsert(connection, VECTORS, some)


def remembering(
    book: VectorBook, encoder: str, encode: Callable[[Sequence[str]], Floats], at_once: int = 64
) -> Callable[[Sequence[str]], Floats]:
    """`encode` that reads each text once, whatever restarts come between; what is done of many is kept as it goes.

    Args:
        encoder: identity of what reads, recipe and catalogue included.
    """

    def remembered(texts: Sequence[str]) -> Floats:
        begin = hashlib.sha256(f"{encoder}\0".encode())
        keys = [_key(begin, text) for text in texts]
        known = book.get(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for some in chunks(missing, at_once):
            vectors = encode([missing[key] for key in some])
            book.put(some, vectors)
            known |= dict(zip(some, vectors, strict=True))
        return np.stack([known[key] for key in keys])

    return remembered


def text_key(encoder: str, text: str) -> bytes:
    """SHA-256 of encoder and text."""
    return _key(hashlib.sha256(f"{encoder}\0".encode()), text)


def _key(begin: "hashlib._Hash", text: str) -> bytes:
    whole = begin.copy()
    whole.update(text.encode())
    return whole.digest()
