"""A coordinator at a glance, for its command line and its pages; and the way back to an earlier version."""

from typing import Any

from fedrec.errors import ConfigError
from fedrec.signing import fingerprint
from fedrec_server.heads import SignedHead
from fedrec_server.partner_book import PartnerBook
from fedrec_server.settings import Coordinator
from fedrec_server.store import GENERATION, PAUSED, Office
from fedrec_server.supervisor import running_pid


def overview(coordinator: Coordinator) -> dict[str, Any]:
    """What runs, who takes part, how far training is. Public figures only."""
    federation, head = coordinator.federation(), coordinator.registry.head()
    office = Office(coordinator.database)
    return {
        "federation": federation.terms.name,
        "mode": federation.terms.mode,
        "epsilon": federation.statement.get("epsilon"),
        "running": running_pid(coordinator) is not None,
        "paused": office.setting(PAUSED) == "yes",
        "generation": int(office.setting(GENERATION, "1")),
        "round": head.round if head else 0,
        "rounds": len(federation.schedule),
        "adapter": head.adapter_hash if head else federation.initial.hash,
        "partners": partners_told(coordinator),
    }


def partners_told(coordinator: Coordinator) -> list[dict[str, Any]]:
    """Every partner, with the fingerprint of its key."""
    kept = ("name", "status", "enrolled_at", "last_seen", "reason")
    return [
        {**{name: getattr(p, name) for name in kept}, "fingerprint": fingerprint(bytes.fromhex(p.signing_key))}
        for p in PartnerBook(coordinator.database).partners()
    ]


def roll_back(coordinator: Coordinator, number: int) -> SignedHead:
    """Let an earlier version count, under a higher generation, which partners follow.

    Raises: ConfigError: rounds are under way. RunError: no such version. StorageError.
    """
    office = Office(coordinator.database)
    if running_pid(coordinator) is not None and office.setting(PAUSED) != "yes":
        raise ConfigError("rounds are under way", "flower-server pause, then roll back, then resume")
    coordinator.registry.rollback(number)
    generation = int(office.setting(GENERATION, "1")) + 1
    office.set_setting(GENERATION, str(generation), who="cli")
    return coordinator.heads.sign(coordinator.signing_key(), coordinator.federation().terms.name, generation)
