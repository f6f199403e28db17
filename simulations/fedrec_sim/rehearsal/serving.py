"""Partners that serve while they train, from the first wish for a round to the last process that ends."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.data.interactions import read_stored_interactions
from fedrec_client.importing import INTERACTIONS, read_catalog_bytes
from fedrec_client.serving.learning.promotion_record import PromotionBook
from fedrec_client.serving.learning.scheduler import decisions
from fedrec_sim.rehearsal import checks
from fedrec_sim.rehearsal.endings import endings
from fedrec_sim.rehearsal.federations import deal_rows, trained_federation
from fedrec_sim.rehearsal.learnt import rows_paid_for, seq_of
from fedrec_sim.rehearsal.rehearse import Say, Timeline, all_are_connected, checked, settle
from fedrec_sim.rehearsal.shops import Shop, Visitors, make_shop, wait_until_ready
from fedrec_sim.rehearsal.stage import Stage, change_lines, set_stage, wait_until
from fedrec_sim.rehearsal.wishes import began_at, wishes_hold

ROUNDS = 4
# One wishes by time, every minute in which it looks; one by number of events, which waits for its hour; one never.
NAMES = ("by-time", "by-events", "off")
_SERVING: dict[str, dict[str, str]] = {
    "by-time": {"rounds = false": "rounds = true", "every_hours = 24.0": "every_hours = 0.005"},
    "by-events": {
        "rounds = false": "rounds = true",
        "every_hours = 24.0": "every_hours = 0.0",
        "new_events = 10000": "new_events = 5",
    },
    "off": {},
}
_ROUND_TIMEOUT_S, _DECISION_S = 240.0, 240.0
# Codes of the catalogue.
_LIKED = (7, 49, 99)
_NEWCOMER, _NEW_ITEM = "newcomer", "the-rehearsal"
_FILM = {"title": "The Rehearsal (2026)", "text": "A comedy about a shop that learns while it sells.", "categories": []}


def rehearse_serving(folder: Path, *, say: Say) -> dict[str, Any]:
    """Rounds on wish alone, events by HTTP, replay, a deletion and a kill meanwhile; what came of it, in figures."""
    timeline, names = Timeline(say), list(NAMES)
    catalog, rows = deal_rows(folder, names)
    trained_federation(catalog, partners=len(names), rounds=ROUNDS).write(folder / "federation")
    stage = set_stage(folder, folder / "federation", rows, say=timeline.note)
    shops: dict[str, Shop] = {}
    try:
        shops |= {name: make_shop(stage, name, _SERVING[name]) for name in names}
        change_lines(stage.server.folder / "server.toml", {"on_wish = false": "on_wish = true"})
        settle(stage, timeout_s=_ROUND_TIMEOUT_S)
        stage.server_says("resume")
        for client in stage.clients.values():
            client.start()
        wait_until_ready(list(shops.values()))
        wait_until(lambda: all_are_connected(stage), "every partner to connect")
        timeline.note("every partner serves and is connected")
        found = ServingDay(stage, shops, timeline)
        found.all_of_it()
    finally:
        for shop in shops.values():
            shop.close()
        stage.close()
    whole = checked(stage, ROUNDS)
    return {**whole, "checks": {**whole["checks"], **found.checks}, **found.figures(), "timeline": timeline.lines}


@dataclass
class ServingDay:
    """What happens once all are there.

    Attributes:
        checks: what was found to hold.
        verdicts: by round and partner, what was decided of its adapter and by which figures.
    """

    stage: Stage
    shops: dict[str, Shop]
    timeline: Timeline
    checks: dict[str, bool] = field(default_factory=dict)
    verdicts: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = self.shops["by-time"]
        self.catalog = read_catalog_bytes(self.stage.coordinator.federation().catalog)
        people = {name: self._people(shop) for name, shop in self.shops.items()}
        self.leaver = people["by-time"].pop()
        self.visitors = Visitors(self.shops, people)

    def all_of_it(self) -> None:
        """Every step, in order; people come and go meanwhile."""
        with self.visitors:
            self._tell_what_is_new()
            self._follow(1)
            self._see_what_was_learnt()
            self._see_decided(1)
            self._follow(2)
            self._delete_somebody()
            self._follow(3)
            self.checks["deleted_is_in_no_later_round"] = self._is_without_leaver(3)
            self._kill_a_node()
            self._see_decided(2)
            self._follow(4)
            self.checks["deleted_is_in_no_later_round"] &= self._is_without_leaver(4)
            self._see_decided(4)
            wait_until(lambda: checks.adapters_are_verified(self.stage), "every partner to hold the newest adapter")
        faults = self.visitors.faults
        for fault in sorted(set(faults)):
            self.timeline.note(f"a visitor saw: {fault}")
        self.checks["always_answered_and_no_5xx"] = not faults
        told = self.visitors.acknowledged.items()
        lost = [event for name, events in told for event in events if not seq_of(self.shops[name].node, event)]
        self.checks["no_acknowledged_event_is_lost"] = not lost
        self.checks["adapters_are_judged_by_replay"] = self._were_judged()
        self.checks |= wishes_hold(self.stage, ROUNDS)
        self.checks |= endings(self.stage, self.timeline)

    def figures(self) -> dict[str, Any]:
        """Of wishes, verdicts and answers."""
        ms = np.array(self.visitors.seconds) * 1e3
        asks = [one["at"] for one in decisions(self.first.node.serving) if one["asks"]]
        began = [began_at(self.stage, number) for number in range(1, ROUNDS + 1)]
        lists = {"answered": len(ms), "statuses": dict(sorted(self.visitors.statuses.items()))}
        lists |= {f"p{q}_ms": round(float(np.percentile(ms, q)), 1) for q in (50, 99)}
        return {
            "wish_to_round_s": [round(start - max(a for a in asks if a <= start), 2) for start in began],
            "verdicts": self.verdicts,
            "lists": lists,
            "events_acknowledged": sum(map(len, self.visitors.acknowledged.values())),
        }

    def _people(self, shop: Shop) -> list[str]:
        return list(read_stored_interactions(shop.node.data / INTERACTIONS, self.catalog).user_ids)

    def _tell_what_is_new(self) -> None:
        """A new item with a text, and a new user who turns to it and to others; by HTTP, as a shop does."""
        names = [shop.told("GET", f"/v1/recommend/{_NEWCOMER}?n=5")["adapter"] for shop in self.shops.values()]
        self.checks["answers_before_any_adapter"] = set(names) == {"round-0000"}
        items = [self.catalog.ids[code] for code in _LIKED]
        for shop in self.shops.values():
            shop.told("PUT", f"/v1/items/{_NEW_ITEM}", _FILM)
            events = [
                {
                    "id": f"new-{n}",
                    "type": "like",
                    "user": _NEWCOMER,
                    "item": item,
                    "timestamp": time.time() + 0.001 * n,
                }
                for n, item in enumerate([*items, _NEW_ITEM])
            ]
            taken = shop.told("POST", "/v1/events", [*events, {**events[2], "id": "late", "timestamp": 1.0}])
            self.checks["new_events_are_taken"] = taken["accepted"] == 5 and self.checks.get(
                "new_events_are_taken", True
            )
        told = self.first.told("POST", "/v1/rank", {"user": "somebody else", "candidates": [_NEW_ITEM]})
        listed = self.first.told("GET", f"/v1/recommend/{_NEWCOMER}?n=5")
        is_known = told["items"][0]["source"] != "given" and listed["items"][0]["source"] == "model"
        self.checks["new_user_and_item_are_served_at_once"] = is_known
        self.timeline.note("a new item, and a new user who turned to it")

    def _follow(self, number: int) -> None:
        wait_until(
            lambda: number in checks.committed_rounds(self.stage), f"round {number} to be wished for", _ROUND_TIMEOUT_S
        )
        told = checks.committed_rounds(self.stage)[number]
        self.timeline.note(f"round {number} committed in attempt {told['attempt']}, {told['seconds']:.1f} s")

    def _see_what_was_learnt(self) -> None:
        """The new user's rows in the round of those who let rounds read events, and nowhere else."""
        new = [_LIKED[2], *_LIKED]  # the event that came last is dated first
        for name, shop in self.shops.items():
            paid = rows_paid_for(self.stage, name, 1)
            is_there = paid is not None and paid.holds(new) and paid.seq >= seq_of(shop.node, "new-3")
            if name == "off":
                is_there = paid is not None and not paid.holds(new)
            self.checks[f"rows_of_a_round_are_those_of_the_store: {name}"] = is_there
        self.timeline.note("the new user's rows were paid for in round 1")

    def _delete_somebody(self) -> None:
        path = f"/v1/users/{self.leaver}"
        before = self.first.told("GET", f"{path}/export", as_admin=True)["kept"]
        gone = self.first.told("DELETE", path, as_admin=True)["removed"]
        is_gone = before["events"] and gone["events"] == len(before["events"])
        after = self.first.told("GET", f"/v1/recommend/{self.leaver}?n=5")
        is_gone = is_gone and self.leaver not in self._people(self.first) and bool(after["items"])
        self.checks["deletion_is_carried_out"] = bool(is_gone)
        self.timeline.note("somebody was deleted")

    def _is_without_leaver(self, number: int) -> bool:
        """The store has none of their rows any more, and it was the store's that were paid for."""
        return rows_paid_for(self.stage, self.first.name, number) is not None

    def _see_decided(self, number: int) -> None:
        """Wait until each service took an adapter up, or a later one, or refused it; they look once a minute."""
        told: dict[str, tuple[int, dict[str, Any]]] = {}

        def decided() -> bool:
            for name, shop in self.shops.items():
                for later in range(ROUNDS, number - 1, -1):
                    if name not in told and (found := _verdict(shop, f"round-{later:04d}")) is not None:
                        told[name] = later, found
            return len(told) == len(self.shops)

        wait_until(decided, f"every service to decide about the adapter of round {number}", _DECISION_S)
        for name, (later, found) in told.items():
            self.verdicts.setdefault(later, {})[name] = found
        words = (f"{name}: round {later} {found['outcome']}" for name, (later, found) in told.items())
        self.timeline.note(", ".join(words))

    def _were_judged(self) -> bool:
        """By events that came after the round had read; the first adapter alone needs no replay."""
        later = [(name, one) for number in self.verdicts if number > 1 for name, one in self.verdicts[number].items()]
        return {name for name, _ in later} == set(self.shops) and all(one["events"] > 0 for _, one in later)

    def _kill_a_node(self) -> None:
        """All processes of a node at once, in the middle of everything; then it is started again."""
        name = self.first.name
        self.visitors.down.add(name)
        self.stage.clients[name].kill()
        self.timeline.note("all processes of a node were killed")
        acknowledged = list(self.visitors.acknowledged[name])
        self.stage.clients[name].start()
        wait_until_ready([self.first])
        self.visitors.down.discard(name)
        record = PromotionBook(self.first.node.serving).read()
        adapter = self.first.told("GET", "/v1/status", as_admin=True)["adapter"]
        self.checks["killed_node_serves_again"] = record.serving is not None and adapter == record.serving.version
        lost = sum(not seq_of(self.first.node, event) for event in acknowledged)
        self.checks["killed_node_lost_no_acknowledged_event"] = bool(acknowledged) and not lost
        self.timeline.note(f"it serves again: {lost} of {len(acknowledged)} acknowledged events lost")


def _verdict(shop: Shop, version: str) -> dict[str, Any] | None:
    """Of an adapter by a service; None: not yet."""
    record = PromotionBook(shop.node.serving).read()
    refusal = next((one for one in record.refused if one.version == version), None)
    if refusal is not None:
        return {"outcome": f"refused: {refusal.reason}", **_figures(refusal.figures)}
    if record.serving is not None and record.serving.version == version:
        return {"outcome": "served", **_figures(record.figures)}
    return None


def _figures(verdicts: dict[str, Any]) -> dict[str, Any]:
    """Of the only tenant; without any if it was not replayed."""
    told = verdicts.get("default")
    if not told:
        return {"events": 0}
    kept = ("events", "users", "ndcg_old", "ndcg_new", "took_s")
    return {"replay": told["outcome"], **{name: round(told[name], 4) for name in kept}}
