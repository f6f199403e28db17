"""How training goes: who answered the attempt under way, and what each committed round cost and brought."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fedrec.privacy.plan import PrivacyPlan
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_server.settings import Coordinator
from fedrec_server.state.partner_book import Partner, PartnerBook
from fedrec_server.state.quality_book import Quality, QualityBook
from fedrec_server.state.round_book import RoundBook


def under_way(coordinator: Coordinator) -> dict[str, Any] | None:
    """The attempt that waits for answers, and how each approved partner stands in it; None between rounds.

    An attempt that a crash cut short looks the same until the next begins; whoever shows it asks what runs.
    """
    latest = RoundBook(coordinator.database).latest(1)
    if not latest or latest[0]["status"] != "asked":
        return None
    attempt = latest[0]
    partners = [
        {"partner": partner.name, "stands": _stands(partner, attempt["started_at"]), "reason": partner.reason}
        for partner in PartnerBook(coordinator.database).partners("approved")
    ]
    since = (datetime.now(UTC) - datetime.fromisoformat(attempt["started_at"])).total_seconds()
    place = {name: attempt[name] for name in ("round", "attempt", "part", "started_at")}
    return {**place, "seconds": round(since, 1), "partners": partners}


def _stands(partner: Partner, since: str) -> str:
    """`answered`, `lost` or `open`; times of one clock sort as text."""
    if partner.answered_at < since:
        return "open"
    return "lost" if partner.reason else "answered"


@dataclass
class EpsilonByRound:
    """What the plan has cost after each round of the schedule, by an accountant; some seconds the first time.

    It counts each round once: what retries cost a partner stands in that partner's own ledger.
    """

    plan: PrivacyPlan | None
    schedule: tuple[RoundSpec, ...] = field(repr=False)
    _known: dict[int, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def after(self, number: int) -> float | None:
        """Epsilon after a round at the plan's delta; None without a plan."""
        if self.plan is None:
            return None
        with self._lock:  # several pages may ask at once; one accountant is enough
            if number not in self._known:
                steps = Counter[str]()
                for spec in self.schedule[:number]:
                    steps[spec.part] += spec.local_steps
                self._known[number] = self.plan.epsilon(steps) if number else 0.0
            return self._known[number]


def series(coordinator: Coordinator, epsilon: EpsilonByRound) -> list[dict[str, Any]]:
    """One entry a committed round that still counts, oldest first."""
    head = coordinator.registry.head()
    if head is None:
        return []
    kept = ("round", "attempt", "part", "started_at", "seconds", "bytes_up", "bytes_down", "step_norm")
    measured = QualityBook(coordinator.database).by_adapter()
    found = [told for told in RoundBook(coordinator.database).committed() if told["round"] <= head.round]
    return [
        {
            **{name: told[name] for name in kept},
            "answers": _count(told["partners"]),
            "epsilon": epsilon.after(told["round"]),
            "quality": _quality(measured.get(told["adapter_hash"])),
        }
        for told in found
    ]


def _quality(found: Quality | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: getattr(found, name) for name in ("data", "protocol", "users", "hit_ratio", "ndcg")}


def _count(partners: list[str] | int) -> int:
    return partners if isinstance(partners, int) else len(partners)


def versions(coordinator: Coordinator, limit: int = 200) -> list[dict[str, Any]]:
    """Committed adapter versions that HEAD leads to, newest first. Raises RunError: one is damaged."""
    head, registry = coordinator.registry.head(), coordinator.registry
    if head is None:
        return []
    found = [registry.version(number) for number in range(head.round, max(-1, head.round - limit), -1)]
    kept = ("round", "attempt", "adapter_hash", "parent", "mode", "created_at")
    return [{name: getattr(version, name) for name in kept} for version in found]
