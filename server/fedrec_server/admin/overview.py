"""A coordinator at a glance, for its command line and its pages. Public figures only."""

from typing import Any

from fedrec.signing import fingerprint
from fedrec_server.settings import Coordinator
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.store import GENERATION, PAUSED, Office
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
    kept = ("name", "status", "enrolled_at", "last_seen", "wished_at", "reason")
    return [
        {**{name: getattr(p, name) for name in kept}, "fingerprint": fingerprint(bytes.fromhex(p.signing_key))}
        for p in PartnerBook(coordinator.database).partners()
    ]
