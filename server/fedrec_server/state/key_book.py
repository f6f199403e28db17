"""Partners' keys that change: new ones in place of old, which never count again, for nobody."""

from typing import Any

from sqlalchemy import Connection, RowMapping, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from fedrec.errors import ConfigError, ProtocolError
from fedrec.signing import fingerprint
from fedrec_server.state.store import Database, now, write_audit
from fedrec_server.state.tables import PARTNERS, RETIRED_KEYS


class KeyBook:
    """The keys that counted and that count. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def rotate(self, name: str, *, old_key: str, node_key: str, signing_key: str) -> None:
        """Put new keys in place of an approved partner's. The same ones may come again: an answer may have been lost.

        Args:
            old_key: the signing key that vouches for the new ones, as it was when its signature was checked.
        Raises: ProtocolError: that key does not count any more, or the new ones were seen before.
        """
        with self._database.begin() as connection:
            chosen = select(PARTNERS).where(PARTNERS.c.name == name).with_for_update()
            found = connection.execute(chosen).mappings().first()
            if found and (found["node_key"], found["signing_key"]) == (node_key, signing_key):
                return
            if found is None or (found["signing_key"], found["status"]) != (old_key, "approved"):
                raise ProtocolError("the old key does not count any more", "ask the coordinator")
            try:
                retire(connection, found)
                # The condition stands in the update too: of two that come at once, one finds the key gone.
                still = (PARTNERS.c.name == name, PARTNERS.c.signing_key == old_key)
                if not put_in_place(connection, still, node_key, signing_key):
                    raise ProtocolError("the new keys are taken, or came twice at once", "make others")
            except IntegrityError as error:
                raise ProtocolError("the new keys are taken, or came twice at once", "make others") from error
            told = {"partner": name, "old": _fingerprint(old_key), "new": _fingerprint(signing_key)}
            write_audit(connection, name, "keys rotated", told)

    def retired_nodes(self) -> list[str]:
        """Numbers under which Flower may still know nodes whose keys count no more."""
        with self._database.begin() as connection:
            return list(
                connection.execute(select(RETIRED_KEYS.c.node_id).where(RETIRED_KEYS.c.node_id != "")).scalars()
            )

    def forget_node(self, node_id: str) -> None:
        """Flower knows it no more."""
        with self._database.begin() as connection:
            connection.execute(update(RETIRED_KEYS).where(RETIRED_KEYS.c.node_id == node_id).values(node_id=""))


def retire(connection: Connection, partner: RowMapping) -> None:
    """Write a partner's keys down as such that never count again, and the node that goes with them."""
    kept = {"node_key": partner["node_key"], "signing_key": partner["signing_key"], "node_id": partner["node_id"]}
    connection.execute(insert(RETIRED_KEYS).values(partner=partner["name"], retired_at=now(), **kept))


def take_away(connection: Connection, name: str, partner: RowMapping | None) -> None:
    """From now on a partner has no keys that count. Raises ConfigError: unknown, or removed for good."""
    if partner is None:
        raise ConfigError(
            f"no partner {name!r} whose keys could be replaced", "`flower-server partner list` names them"
        )
    if partner["status"] == "removed":
        raise ConfigError(f"partner {name!r} was removed", "invite it under a new name")
    if partner["status"] != "keyless":
        retire(connection, partner)
        gone = update(PARTNERS).where(PARTNERS.c.name == name).values(status="keyless", node_id="")
        connection.execute(gone)
        write_audit(
            connection, "invitation", "keys retired", {"partner": name, "old": _fingerprint(partner["signing_key"])}
        )


def put_in_place(connection: Connection, which: tuple[Any, ...], node_key: str, signing_key: str, **more: str) -> bool:
    """Give the partner that fits the conditions other keys; False if none does, or if one of the keys is retired."""
    if are_retired(connection, node_key, signing_key):
        return False
    values = {"node_key": node_key, "signing_key": signing_key, "node_id": "", **more}
    return bool(connection.execute(update(PARTNERS).where(*which).values(**values)).rowcount)


def are_retired(connection: Connection, node_key: str, signing_key: str) -> bool:
    """Whether one of two keys counted before."""
    either = or_(RETIRED_KEYS.c.node_key == node_key, RETIRED_KEYS.c.signing_key == signing_key)
    return connection.execute(select(RETIRED_KEYS.c.id).where(either)).first() is not None


def _fingerprint(signing_key: str) -> str:
    return fingerprint(bytes.fromhex(signing_key))
