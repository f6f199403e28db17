"""Ed25519 signatures over what travels: whoever reads a plan, an answer or an adapter can tell who wrote it."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedrec.errors import ConfigError, ProtocolError
from fedrec.files import make_folders, replace_file, storage_errors

# What a signature is for stands in what is signed, so that one can never be shown in another's place.
Purpose = Literal[
    "round-plan",
    "answer",
    "adapter-version",
    "federation-terms",
    "request",
    "partner-keys",
    "next-key",
    "authorities",
    "secagg-ask",
    "secagg-answer",
    "secagg-keys",
    "secagg-shared",
    "secagg-survivors",
]
_KEY_BYTES = 32


class SigningKey:
    """A private key in a file that only its owner may read. It never leaves; its repr shows the fingerprint alone."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey({fingerprint(self.public)})"

    @classmethod
    def create(cls, path: Path) -> "SigningKey":
        """Make a key and its file (0600). Raises ConfigError: one is there. StorageError."""
        if path.exists():
            raise ConfigError(f"{path}: a key is there already", "keep it: others know its owner by it")
        secret = os.urandom(_KEY_BYTES)
        with storage_errors(path.parent):
            make_folders(path.parent)
            replace_file(path, secret)
        return cls(secret)

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a key. Raises ConfigError: missing, readable by others, or no key."""
        return cls(read_secret(path, _KEY_BYTES))

    def sign(self, purpose: Purpose, values: Mapping[str, Any]) -> str:
        """Signature over a purpose and JSON values, base64."""
        return base64.b64encode(self._key.sign(_signed_bytes(purpose, values))).decode()


def verify(public: bytes, purpose: Purpose, values: Mapping[str, Any], signature: str) -> None:
    """Raises ProtocolError unless the owner of the public key signed exactly this.

    >>> key = SigningKey(bytes(32))
    >>> verify(key.public, "answer", {"round": 1}, key.sign("answer", {"round": 1}))
    >>> verify(key.public, "round-plan", {"round": 1}, key.sign("answer", {"round": 1}))
    Traceback (most recent call last):
    ...
    fedrec.errors.ProtocolError: round-plan: the signature is not that of 139e3940e64b5491
    """
    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(raw, _signed_bytes(purpose, values))
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError(f"{purpose}: the signature is not that of {fingerprint(public)}") from error


def fingerprint(public: bytes) -> str:
    """What people compare: the first 16 hex digits of the SHA-256 of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def read_secret(path: Path, n_bytes: int = 0) -> bytes:
    """A secret file's bytes. Raises ConfigError: missing, readable by others, or of another length."""
    try:
        mode, secret = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "restore it from a copy") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: may be read by others", f"chmod 600 {path}, and change what it opens")
    if n_bytes and len(secret) != n_bytes:
        raise ConfigError(f"{path}: is no key", "restore it from a copy")
    return secret


def _signed_bytes(purpose: Purpose, values: Mapping[str, Any]) -> bytes:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"fedrec/{purpose}/1\n{text}".encode()
