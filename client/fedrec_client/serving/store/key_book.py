"""API keys: what a caller shows, and what it may do for it."""

import hashlib
import secrets
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, cast, get_args

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from fedrec.database import Database
from fedrec.errors import ConfigError
from fedrec_client.serving.store.columns import identifier
from fedrec_client.serving.store.tables import KEYS

Scope = Literal["read", "write", "admin"]
PREFIX = "fk_"  # by which people and scanners of secrets know one
_K = KEYS.c
_COLUMNS = (_K.name, _K.tenant, _K.scopes, _K.created_at)


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret, which nobody has but its holder."""

    name: str
    tenant: str
    scopes: frozenset[Scope]
    created_at: float


class KeyBook:
    """Keys of all tenants. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, tenant: str, name: str, scopes: AbstractSet[Scope]) -> str:
        """Make a key; returns its secret, which is not kept. Raises ConfigError: name taken, or no such scope."""
        if not scopes or not scopes <= set(get_args(Scope)):
            raise ConfigError("a key needs scopes among read, write and admin", "name one at least")
        secret = PREFIX + secrets.token_urlsafe(32)
        row = {"name": identifier(name), "tenant": tenant, "secret_hash": _hash(secret)}
        row["scopes"] = " ".join(sorted(scopes))
        with self._database.write() as connection:
            try:
                connection.execute(insert(KEYS).values(**row, created_at=time.time()))
            except IntegrityError:
                raise ConfigError("there is a key of that name", "revoke it, or take another name") from None
        return secret

    def find(self, secret: str) -> ApiKey | None:
        """The key of a secret. What is compared are hashes, whose timing says nothing of the secret."""
        with self._database.begin() as connection:
            found = connection.execute(select(*_COLUMNS).where(_K.secret_hash == _hash(secret))).first()
        return None if found is None else _key(*found)

    def every(self) -> list[ApiKey]:
        """All, by name."""
        with self._database.begin() as connection:
            return [_key(*row) for row in connection.execute(select(*_COLUMNS).order_by(_K.name))]

    def revoke(self, name: str) -> bool:
        """From now on it opens nothing; whether it was there."""
        with self._database.write() as connection:
            return bool(connection.execute(delete(KEYS).where(_K.name == name)).rowcount)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(name: str, tenant: str, scopes: str, created_at: float) -> ApiKey:
    return ApiKey(name, tenant, frozenset(cast(list[Scope], scopes.split())), created_at)
