"""Keys and the streams that hide a vector: HKDF-SHA256, X25519, AES-256 in counter mode."""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedrec.errors import ProtocolError

VERSION = b"fedrec-secagg/1"
KEY_BYTES = 32
MAX_BITS = 32
# Words a time: a megabyte stays in the cache, whatever the length of the vector.
_BLOCK = 2**18
_ZEROS = bytes(4 * _BLOCK)
# Safe because every key serves one message or stream: it is derived for one session, one role and one pair.
_NONCE = bytes(12)
Words = NDArray[np.uint32]


def derive(secret: bytes, session: bytes, *roles: str) -> bytes:
    """32 bytes for one purpose: HKDF-SHA256 with the session as salt and version and roles as info.

    Args:
        secret: 32 bytes.
        session: hash over everything that the sum's partners must agree about; public.
        roles: what for, and for whom; each is preceded by its length, so that no two lists read alike.
    Reference: Krawczyk & Eronen 2010, RFC 5869.
    """
    info = VERSION + b"".join(len(role.encode()).to_bytes(2, "big") + role.encode() for role in roles)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=session, info=info).derive(secret)


def public_key(private: bytes) -> bytes:
    """Of an X25519 private key. Reference: Langley et al. 2016, RFC 7748."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, other: bytes) -> bytes:
    """The X25519 secret of two keys. Raises ProtocolError: a public key of small order, whose secret all know."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise ProtocolError("a public key is none that a secret can be agreed with") from error


def seal(key: bytes, content: bytes, about: bytes) -> bytes:
    """Encrypted and authenticated, 16 bytes longer; a key seals once."""
    return AESGCM(key).encrypt(_NONCE, content, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """The inverse. Raises ProtocolError: made with another key, or about something else, or changed."""
    from cryptography.exceptions import InvalidTag

    try:
        return AESGCM(key).decrypt(_NONCE, sealed, about)
    except InvalidTag as error:
        raise ProtocolError("a sealed share cannot be opened") from error


def add_stream(total: Words, key: bytes, sign: int) -> None:
    """Add or take off the AES-256-CTR stream of a key, in place, modulo 2**32.

    Args:
        total: `[numbers]`.
        key: 32 bytes, secret, of this stream alone.
        sign: 1 or -1.

    >>> total = np.zeros(5, np.uint32)
    >>> add_stream(total, bytes(32), 1); add_stream(total, bytes(32), -1); total.tolist()
    [0, 0, 0, 0, 0]
    """
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    held = bytearray(4 * min(_BLOCK, len(total)) + 16)
    step = np.add if sign > 0 else np.subtract
    for start in range(0, len(total), _BLOCK):
        part = total[start : start + _BLOCK]
        stream.update_into(memoryview(_ZEROS)[: 4 * len(part)], held)
        step(part, np.frombuffer(held, "<u4", len(part)), out=part)


def to_words(vector: NDArray[np.int64], bits: int) -> Words:
    """Signed integers modulo 2**bits. Raises ProtocolError: one would not come back as it was."""
    half = 1 << (bits - 1)
    if vector.size and not (-half <= int(vector.min()) and int(vector.max()) < half):
        raise ProtocolError(f"a number does not fit into {bits} bits")
    return vector.astype(np.int64).astype(np.uint32) & _all_ones(bits)


def from_words(words: Words, bits: int) -> NDArray[np.int64]:
    """The integers around zero that these are modulo 2**bits."""
    values = (words & _all_ones(bits)).astype(np.int64)
    return values - ((values >> (bits - 1)) << bits)


def _all_ones(bits: int) -> np.uint32:
    return np.uint32((1 << bits) - 1)
