"""What must hold of wishes after a rehearsal: every round had one, and none was told that should not have been."""

from datetime import datetime

from fedrec.files import read_json
from fedrec_client.serving.learning.scheduler import STATE, decisions
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.round_book import RoundBook
from fedrec_sim.rehearsal.stage import Stage

_HOUR_S, _SPREAD_S = 3600.0, 300.0


def wishes_hold(stage: Stage, rounds: int) -> dict[str, bool]:
    """Name -> whether it holds; partners are named by what makes them wish."""
    told = {partner.name: partner.wished_at for partner in PartnerBook(stage.coordinator.database).partners()}
    return {
        "every_round_was_wished_for": _each_round_had_one(stage, rounds),
        "wish_by_events_waits_for_the_hour": not told["by-events"] and _waits_for_the_hour(stage),
        "no_wish_where_rounds_are_off": not told["off"] and not decisions(stage.node("off").serving),
    }


def _each_round_had_one(stage: Stage, rounds: int) -> bool:
    """Between the beginning of a round and that of the round before there was a wish, and it was one by time."""
    asked = [one for one in decisions(stage.node("by-time").serving) if one["asks"]]
    began = [began_at(stage, number) for number in range(1, rounds + 1)]
    gaps = zip([0.0, *began], began, strict=False)
    return all(one["reason"] == "time" for one in asked) and all(
        any(before < one["at"] <= after for one in asked) for before, after in gaps
    )


def began_at(stage: Stage, number: int) -> float:
    """Unix seconds of the first attempt at a round."""
    found = RoundBook(stage.coordinator.database).latest(1000)
    return min(datetime.fromisoformat(one["started_at"]).timestamp() for one in found if one["round"] == number)


def _waits_for_the_hour(stage: Stage) -> bool:
    values, _ = read_json(stage.node("by-events").serving / STATE, 1)
    pending = values["pending"]
    if not pending or pending[0] != "events":
        return False
    due, since = float(pending[1]), float(values["since"])
    return due - since >= _HOUR_S and due % _HOUR_S <= _SPREAD_S
