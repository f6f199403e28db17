"""Partners and their invitations, as the coordinator knows them."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from fedrec.errors import ConfigError, ProtocolError
from fedrec_server.state.key_book import are_retired, put_in_place, take_away
from fedrec_server.state.store import Database, at, now, write_audit
from fedrec_server.state.tables import INVITES, PARTNERS

# Keyless: the keys it had count no more, and an invitation waits that puts others in their place.
Status = Literal["pending", "approved", "suspended", "keyless", "removed"]
_MAX_REASON = 300


@dataclass(frozen=True)
class Partner:
    """A partner as the coordinator knows it. Public.

    Attributes:
        node_key: of Flower's node authentication, base64.
        signing_key: Ed25519, hex.
        node_id: Flower's, once approved.
        reason: why its last answer did not count; empty if it did.
        answered_at: when that was; empty before the first.
        wished_at: when it last wished for a round; empty before the first.
    """

    name: str
    node_key: str
    signing_key: str
    status: Status
    node_id: str
    enrolled_at: str
    last_seen: str
    reason: str
    answered_at: str = ""
    wished_at: str = ""


class PartnerBook:
    """Who may take part. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def invite(self, name: str, *, valid_for: timedelta, is_approved: bool, replaces_keys: bool = False) -> str:
        """A secret that enrols one partner once; only its hash is kept.

        Args:
            replaces_keys: of a partner that is there; the keys that it has stop counting at once, since whoever asks
                for this has lost them or fears that somebody else holds them.
        Raises: ConfigError: the name is taken; or, with `replaces_keys`, unknown or removed.
        """
        secret = secrets.token_urlsafe(24)
        with self.database.begin() as connection:
            chosen = select(PARTNERS).where(PARTNERS.c.name == name).with_for_update()
            found = connection.execute(chosen).mappings().first()
            if replaces_keys:
                take_away(connection, name, found)
            elif found:
                remedy = "choose another name; if it lost its keys: `flower-server invite NAME --replace-keys`"
                raise ConfigError(f"partner {name!r} is enrolled already", remedy)
            connection.execute(delete(INVITES).where(INVITES.c.name == name, INVITES.c.used_at == ""))
            values = {"created_at": now(), "expires_at": at(datetime.now(UTC) + valid_for), "used_at": ""}
            invite = {"secret_hash": _hash(secret), "name": name, "is_approved": is_approved, **values}
            invite["replaces_keys"] = replaces_keys
            connection.execute(insert(INVITES).values(**invite))
        return secret

    def enrol(self, name: str, secret: str, *, node_key: str, signing_key: str) -> Partner:
        """Use up an invitation. The same keys may come with it again, whose first answer may have been lost.

        Raises: ProtocolError: it is not valid, whatever the reason, or the keys are taken.
        """
        refusal = ProtocolError("the invitation is not valid", "ask the coordinator for a new one")
        with self.database.begin() as connection:
            valid = (INVITES.c.secret_hash == _hash(secret), INVITES.c.name == name, INVITES.c.used_at == "")
            own = select(PARTNERS).join(INVITES, INVITES.c.name == PARTNERS.c.name)
            own = own.where(INVITES.c.secret_hash == _hash(secret), PARTNERS.c.name == name, INVITES.c.used_at != "")
            own = own.where(PARTNERS.c.node_key == node_key, PARTNERS.c.signing_key == signing_key)
            own = own.where(PARTNERS.c.status != "keyless")
            if before := connection.execute(own).mappings().first():
                return Partner(**before)
            found = connection.execute(select(INVITES).where(*valid)).mappings().first()
            if found is None or found["expires_at"] < now():
                raise refusal
            # The condition stands in the update too: of two that come at once, one finds it used.
            if not connection.execute(update(INVITES).where(*valid).values(used_at=now())).rowcount:
                raise refusal
            try:
                if not _write_keys(connection, name, node_key, signing_key, is_new=not found["replaces_keys"]):
                    raise refusal
            except IntegrityError as error:
                raise refusal from error
            what = "keys replaced" if found["replaces_keys"] else "enrolled"
            write_audit(connection, name, what, {"is_approved": bool(found["is_approved"])})
        return self.partner(name)

    def is_preapproved(self, name: str) -> bool:
        """Whether the invitation that a partner used said so."""
        with self.database.begin() as connection:
            used = select(INVITES.c.is_approved).where(INVITES.c.name == name, INVITES.c.used_at != "")
            return bool(connection.execute(used.order_by(INVITES.c.used_at.desc())).scalar())

    def partners(self, *statuses: Status) -> list[Partner]:
        """All, or those of some statuses, by name."""
        with self.database.begin() as connection:
            wanted = select(PARTNERS).order_by(PARTNERS.c.name)
            rows = connection.execute(wanted.where(PARTNERS.c.status.in_(statuses)) if statuses else wanted)
            return [Partner(**row) for row in rows.mappings()]

    def partner(self, name: str) -> Partner:
        """One. Raises ConfigError: unknown."""
        with self.database.begin() as connection:
            found = connection.execute(select(PARTNERS).where(PARTNERS.c.name == name)).mappings().first()
        if found is None:
            raise ConfigError(f"no partner {name!r}", "`flower-server partner list` names them")
        return Partner(**found)

    def give_node(self, name: str, node_id: str, *, node_key: str | None = None) -> bool:
        """Note the number under which Flower knows a partner; empty once it does no more.

        Args:
            node_key: the key that was registered; if it counts no more by now, nothing is noted.
        Returns: whether it was noted.
        """
        counts = (PARTNERS.c.node_key == node_key, PARTNERS.c.status == "approved") if node_key else ()
        with self.database.begin() as connection:
            noted = connection.execute(update(PARTNERS).where(PARTNERS.c.name == name, *counts).values(node_id=node_id))
        return bool(noted.rowcount)

    def set_status(self, name: str, status: Status, *, who: str) -> Partner:
        """Approve, suspend or remove. Raises ConfigError: unknown, removed for good, or its keys do not count."""
        before = self.partner(name)
        if before.status == "removed":
            raise ConfigError(f"partner {name!r} was removed", "invite it under a new name")
        if before.status == "keyless" and status != "removed":
            remedy = "wait until it used its invitation, or make another: flower-server invite NAME --replace-keys"
            raise ConfigError(f"partner {name!r} has no keys that count", remedy)
        # What was looked at stands in the update too: keys that were taken away meanwhile are not let in again.
        same = (PARTNERS.c.name == name, PARTNERS.c.status == before.status)
        with self.database.begin() as connection:
            if not connection.execute(update(PARTNERS).where(*same).values(status=status)).rowcount:
                raise ConfigError(f"partner {name!r} changed at the same moment", "look at it, and try again")
            write_audit(connection, who, f"partner {status}", {"partner": name})
        return self.partner(name)

    def wish(self, name: str) -> None:
        """A partner wishes for a round."""
        with self.database.begin() as connection:
            connection.execute(update(PARTNERS).where(PARTNERS.c.name == name).values(wished_at=now()))

    def see(self, name: str, reason: str | None = None) -> None:
        """A partner was heard of; with a reason, its answer did not count, with an empty one it did."""
        values = {"last_seen": now()} if reason is None else {"reason": reason[:_MAX_REASON], "answered_at": now()}
        with self.database.begin() as connection:
            connection.execute(update(PARTNERS).where(PARTNERS.c.name == name).values(**values))


def _write_keys(connection: Connection, name: str, node_key: str, signing_key: str, *, is_new: bool) -> bool:
    """Of a new partner, or in place of those that a partner had; False if they cannot be."""
    if not is_new:
        keyless = (PARTNERS.c.name == name, PARTNERS.c.status == "keyless")
        return put_in_place(connection, keyless, node_key, signing_key, status="pending")
    if are_retired(connection, node_key, signing_key):
        return False
    connection.execute(
        insert(PARTNERS).values(**vars(Partner(name, node_key, signing_key, "pending", "", now(), "", "")))
    )
    return True


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
