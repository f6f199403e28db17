"""The rules that a tenant made by API."""

from sqlalchemy import Connection, delete, select, update

from fedrec.database import Database
from fedrec.recommend.shelf import Json
from fedrec_client.serving.store.columns import from_json, identifier, to_json, upsert
from fedrec_client.serving.store.tables import RULE_VERSIONS, RULES

_V = RULE_VERSIONS.c


class RuleBook:
    """Rules by name, as they were given. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database, self._tenant = database, tenant

    def put(self, name: str, rule: Json) -> None:
        """Make a rule, or another of the name. Raises DataError: it is no JSON, or the name cannot be one."""
        row = {"tenant": self._tenant, "name": identifier(name), "rule": to_json(rule)}
        with self._database.write() as connection:
            upsert(connection, RULES, [row])
            self._change(connection)

    def get(self, name: str) -> Json | None:
        """One of them."""
        wanted = select(RULES.c.rule).where(RULES.c.tenant == self._tenant, RULES.c.name == name)
        with self._database.begin() as connection:
            found = connection.execute(wanted).scalar()
        return None if found is None else from_json(found)

    def remove(self, name: str) -> bool:
        """Forget one; whether it was there."""
        gone = delete(RULES).where(RULES.c.tenant == self._tenant, RULES.c.name == name)
        with self._database.write() as connection:
            was_there = bool(connection.execute(gone).rowcount)
            if was_there:
                self._change(connection)
        return was_there

    def every(self) -> dict[str, Json]:
        """All, by name."""
        wanted = select(RULES.c.name, RULES.c.rule).where(RULES.c.tenant == self._tenant).order_by(RULES.c.name)
        with self._database.begin() as connection:
            return {name: from_json(rule) for name, rule in connection.execute(wanted)}

    def version(self) -> int:
        """A number that goes up with every change."""
        with self._database.begin() as connection:
            return connection.execute(select(_V.version).where(_V.tenant == self._tenant)).scalar() or 0

    def _change(self, connection: Connection) -> None:
        upsert(connection, RULE_VERSIONS, [{"tenant": self._tenant, "version": 0}], replace=False)
        connection.execute(update(RULE_VERSIONS).where(_V.tenant == self._tenant).values(version=_V.version + 1))
