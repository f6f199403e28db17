"""What opens the admin API: a token for programs, a password for people, and sessions for browsers."""

import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrec.errors import ConfigError
from fedrec.files import json_bytes, replace_file, storage_errors
from fedrec.signing import read_secret

ADMIN_TOKEN, METRICS_TOKEN, PASSWORD = "admin.token", "metrics.token", "admin.password"
LEAST_PASSWORD = 12
_MOST_PASSWORD = 1000
# OWASP's advice for scrypt: 128 * n * r bytes, here 32 MB.
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}
_SCRYPT_MEMORY = 64 << 20
SESSION_S = 8 * 3600.0
_MOST_SESSIONS = 100


@dataclass(frozen=True)
class Session:
    """A browser that is logged in.

    Attributes:
        key: of its cookie.
        csrf: what its pages send back with every change.
        epoch: of the credentials that opened it.
        ends: monotonic seconds.
    """

    key: str = field(repr=False)
    csrf: str = field(repr=False)
    epoch: bytes = field(repr=False)
    ends: float


class Credentials:
    """Tokens and password of a coordinator's folder, read anew each time, and the sessions that they opened.

    Args:
        keys: the folder that holds them.
        session_s: how long a session lasts.
    """

    def __init__(self, keys: Path, session_s: float = SESSION_S) -> None:
        self._keys, self._session_s = keys, session_s
        self._sessions: dict[str, Session] = {}

    def is_admin_token(self, given: str) -> bool:
        """Whether it opens everything. Raises ConfigError: the file is missing or readable by others."""
        return _same(given, read_secret(self._keys / ADMIN_TOKEN))

    def is_metrics_token(self, given: str) -> bool:
        """Whether it opens the figures for monitoring. Raises as `is_admin_token`."""
        return _same(given, read_secret(self._keys / METRICS_TOKEN))

    def log_in(self, secret: str) -> Session | None:
        """A session for the password or the admin token; None for anything else. Slow by intention."""
        if not (self.is_admin_token(secret) or self._is_password(secret)):
            return None
        moment = time.monotonic()
        kept = sorted((s for s in self._sessions.values() if s.ends > moment), key=lambda s: s.ends)
        session = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), self._epoch(), moment + self._session_s)
        self._sessions = {s.key: s for s in [*kept[-(_MOST_SESSIONS - 1) :], session]}
        return session

    def session(self, key: str) -> Session | None:
        """The one of a cookie, unless it ended or the password or the token was changed since."""
        found = self._sessions.get(key)
        if found is None or found.ends < time.monotonic() or found.epoch != self._epoch():
            return None
        return found

    def log_out(self, session: Session) -> None:
        """End it."""
        self._sessions.pop(session.key, None)

    def _is_password(self, given: str) -> bool:
        path = self._keys / PASSWORD
        if not path.is_file() or len(given) > _MOST_PASSWORD:
            return False
        try:
            kept: dict[str, Any] = json.loads(read_secret(path))
            salt, hashed = bytes.fromhex(kept["salt"]), bytes.fromhex(kept["hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: is damaged", "flower-server password makes a new one") from error
        return hmac.compare_digest(_scrypt(given, salt), hashed)

    def _epoch(self) -> bytes:
        path = self._keys / PASSWORD
        password = read_secret(path) if path.is_file() else b""
        return hashlib.sha256(read_secret(self._keys / ADMIN_TOKEN) + b"\n" + password).digest()


def set_password(keys: Path, password: str) -> None:
    """Keep a password's scrypt hash; sessions opened before end. Raises ConfigError: too short or long. StorageError.

    Reference: RFC 7914.
    """
    if not LEAST_PASSWORD <= len(password) <= _MOST_PASSWORD:
        raise ConfigError(f"a password needs {LEAST_PASSWORD} to {_MOST_PASSWORD} characters", "choose another one")
    salt = os.urandom(16)
    with storage_errors(keys):
        replace_file(keys / PASSWORD, json_bytes({"salt": salt.hex(), "hash": _scrypt(password, salt).hex()}))


def remove_password(keys: Path) -> None:
    """From now on the token alone opens the pages."""
    with storage_errors(keys):
        (keys / PASSWORD).unlink(missing_ok=True)


def make_tokens(keys: Path) -> None:
    """Those that are not there yet. Raises StorageError."""
    with storage_errors(keys):
        for name in (ADMIN_TOKEN, METRICS_TOKEN):
            if not (keys / name).exists():
                replace_file(keys / name, secrets.token_hex(24).encode())


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, maxmem=_SCRYPT_MEMORY, **_SCRYPT)


def _same(given: str, kept: bytes) -> bool:
    return hmac.compare_digest(given.encode(), kept)
