"""Partners and their invitations, as the coordinator knows them."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from fedrec.errors import ConfigError, ProtocolError
from fedrec_server.store import Database, at, now, write_audit
from fedrec_server.tables import INVITES, PARTNERS

Status = Literal["pending", "approved", "suspended", "removed"]
_MAX_REASON = 300


@dataclass(frozen=True)
class Partner:
    """A partner as the coordinator knows it. Public.

    Attributes:
        node_key: of Flower's node authentication, base64.
        signing_key: Ed25519, hex.
        node_id: Flower's, once approved.
        reason: why its last answer did not count; empty if it did.
    """

    name: str
    node_key: str
    signing_key: str
    status: Status
    node_id: str
    enrolled_at: str
    last_seen: str
    reason: str


class PartnerBook:
    """Who may take part. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def invite(self, name: str, *, valid_for: timedelta, is_approved: bool) -> str:
        """A secret that enrols one partner once; only its hash is kept. Raises ConfigError: the name is taken."""
        secret = secrets.token_urlsafe(24)
        with self._database.begin() as connection:
            if connection.execute(select(PARTNERS.c.name).where(PARTNERS.c.name == name)).first():
                raise ConfigError(f"partner {name!r} is enrolled already", "choose another name")
            connection.execute(delete(INVITES).where(INVITES.c.name == name, INVITES.c.used_at == ""))
            values = {"created_at": now(), "expires_at": at(datetime.now(UTC) + valid_for), "used_at": ""}
            invite = {"secret_hash": _hash(secret), "name": name, "is_approved": is_approved, **values}
            connection.execute(insert(INVITES).values(**invite))
        return secret

    def enrol(self, name: str, secret: str, *, node_key: str, signing_key: str) -> Partner:
        """Use up an invitation. The same keys may come with it again, whose first answer may have been lost.

        Raises: ProtocolError: it is not valid, whatever the reason, or the keys are taken.
        """
        refusal = ProtocolError("the invitation is not valid", "ask the coordinator for a new one")
        with self._database.begin() as connection:
            valid = (INVITES.c.secret_hash == _hash(secret), INVITES.c.name == name, INVITES.c.used_at == "")
            own = select(PARTNERS).join(INVITES, INVITES.c.name == PARTNERS.c.name)
            own = own.where(INVITES.c.secret_hash == _hash(secret), PARTNERS.c.name == name)
            own = own.where(PARTNERS.c.node_key == node_key, PARTNERS.c.signing_key == signing_key)
            if before := connection.execute(own).mappings().first():
                return Partner(**before)
            found = connection.execute(select(INVITES).where(*valid)).mappings().first()
            if found is None or found["expires_at"] < now():
                raise refusal
            # The condition stands in the update too: of two that come at once, one finds it used.
            if not connection.execute(update(INVITES).where(*valid).values(used_at=now())).rowcount:
                raise refusal
            partner = Partner(name, node_key, signing_key, "pending", "", now(), "", "")
            try:
                connection.execute(insert(PARTNERS).values(**vars(partner)))
            except IntegrityError as error:
                raise refusal from error
            write_audit(connection, name, "enrolled", {"is_approved": bool(found["is_approved"])})
        return partner

    def is_preapproved(self, name: str) -> bool:
        """Whether the invitation that a partner used said so."""
        with self._database.begin() as connection:
            used = select(INVITES.c.is_approved).where(INVITES.c.name == name, INVITES.c.used_at != "")
            return bool(connection.execute(used.order_by(INVITES.c.used_at.desc())).scalar())

    def partners(self, *statuses: Status) -> list[Partner]:
        """All, or those of some statuses, by name."""
        with self._database.begin() as connection:
            wanted = select(PARTNERS).order_by(PARTNERS.c.name)
            rows = connection.execute(wanted.where(PARTNERS.c.status.in_(statuses)) if statuses else wanted)
            return [Partner(**row) for row in rows.mappings()]

    def partner(self, name: str) -> Partner:
        """One. Raises ConfigError: unknown."""
        with self._database.begin() as connection:
            found = connection.execute(select(PARTNERS).where(PARTNERS.c.name == name)).mappings().first()
        if found is None:
            raise ConfigError(f"no partner {name!r}", "`flower-server partner list` names them")
        return Partner(**found)

    def give_node(self, name: str, node_id: str) -> None:
        """Note the number under which Flower knows a partner; empty once it does no more."""
        with self._database.begin() as connection:
            connection.execute(update(PARTNERS).where(PARTNERS.c.name == name).values(node_id=node_id))

    def set_status(self, name: str, status: Status, *, who: str) -> Partner:
        """Approve, suspend or remove. Raises ConfigError: unknown, or removed for good."""
        before = self.partner(name)
        if before.status == "removed":
            raise ConfigError(f"partner {name!r} was removed", "invite it under a new name")
        with self._database.begin() as connection:
            connection.execute(update(PARTNERS).where(PARTNERS.c.name == name).values(status=status))
            write_audit(connection, who, f"partner {status}", {"partner": name})
        return self.partner(name)

    def see(self, name: str, reason: str | None = None) -> None:
        """A partner was heard of; with a reason, its answer did not count, with an empty one it did."""
        values = {"last_seen": now()} if reason is None else {"reason": reason[:_MAX_REASON]}
        with self._database.begin() as connection:
            connection.execute(update(PARTNERS).where(PARTNERS.c.name == name).values(**values))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
