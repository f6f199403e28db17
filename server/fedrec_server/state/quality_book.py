"""How good adapter versions are on published rows; nothing here was measured on a partner's."""

from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select

from fedrec_server.state.store import Database, now, write_audit
from fedrec_server.state.tables import QUALITY


@dataclass(frozen=True)
class Quality:
    """One version on one data set. Public.

    Attributes:
        data: name of the published data set.
        protocol: how users' rows were split and ranked.
        users: whose last item was to be found.
        hit_ratio, ndcg: HR@10 and NDCG@10.
    """

    adapter_hash: str
    data: str
    protocol: str
    users: int
    hit_ratio: float
    ndcg: float


class QualityBook:
    """Measured versions. Every method is one transaction.

    Raises, in every method: StorageError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, quality: Quality, *, who: str) -> None:
        """Keep it, in place of an earlier measurement of the same version on the same data."""
        same = (QUALITY.c.adapter_hash == quality.adapter_hash, QUALITY.c.data == quality.data)
        detail = {"adapter": quality.adapter_hash, "data": quality.data}
        with self._database.begin() as connection:
            connection.execute(delete(QUALITY).where(*same))
            connection.execute(insert(QUALITY).values(**asdict(quality), measured_at=now()))
            write_audit(connection, who, "quality measured", detail)

    def by_adapter(self) -> dict[str, Quality]:
        """The latest measurement of each version, by its adapter hash."""
        wanted = select(QUALITY).order_by(QUALITY.c.measured_at)
        with self._database.begin() as connection:
            rows = connection.execute(wanted).mappings()
            return {
                row["adapter_hash"]: Quality(**{name: row[name] for name in Quality.__dataclass_fields__})
                for row in rows
            }
