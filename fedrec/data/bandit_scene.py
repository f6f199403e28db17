"""The Open Bandit log as a scene: three campaigns as three shops, groups of visitors as users.

Nobody in the log has an id. All visitors of one campaign with the same four hashed features stand for one user; what
differential privacy protects here is such a group. Histories are made of the rows of Thompson sampling alone; the rows
of the uniform policy are kept apart, to estimate from them what a list would have earned.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.events import EventLog
from fedrec.data.open_bandit import CAMPAIGNS, BanditLog, Campaign
from fedrec.data.scene import LoggedShows, Scene

Logs = Mapping[Campaign, BanditLog]
KINDS = ("shown", "clicked-before", "click")
_TOLD = (
    "Real: 30,000 impressions of a fashion shop's three campaigns under Thompson sampling (Open Bandit Dataset, "
    "CC BY 4.0), with the clicks, and the earlier clicks that the log knows of each visitor. Nobody has an id: all "
    "visitors of one campaign with the same four hashed features stand for one user, so that figures, and the "
    "guarantee, are of such groups and not of persons. The log has no carts, purchases or prices. Item features are "
    "hashed too: texts name codes, and the language model can tell little by them. Each campaign stands for a shop. "
    "The 30,000 rows of the uniform policy are in no history; policy_value is estimated from them."
)


def bandit_scene(drawn: Logs, uniform: Logs) -> Scene:
    """What both policies' logs make.

    Args:
        drawn: of the policy whose rows become histories, by campaign.
        uniform: of the policy whose rows are kept apart.
    """
    starts = dict(zip(CAMPAIGNS, np.cumsum([0, *(drawn[c].n_actions for c in CAMPAIGNS)]).tolist(), strict=False))
    items = [(c, item) for c in CAMPAIGNS for item in range(drawn[c].n_actions)]
    words = [(c, item, drawn[c].item_words[item].tolist()) for c, item in items]
    titles = tuple(f"{c} item {item}" for c, item in items)
    catalog = ItemCatalog(
        ids=tuple(f"{c}-{item:02d}" for c, item in items),
        titles=titles,
        texts=tuple(
            f"Fashion, campaign {c}. Item {item}. Kind k{w[0]}, brand b{w[1]}, style s{w[2]}." for c, item, w in words
        ),
        categories=tuple((f"{c} kind {w[0]}",) for c, _, w in words),
        years=(None,) * len(items),
    )
    rows = [row for c in CAMPAIGNS for row in _events(c, drawn[c], starts[c])]
    shows = _shows(uniform, starts)
    return Scene(
        catalog,
        EventLog.of(rows, catalog.ids, KINDS),
        tuple(
            {"campaign": c, "brand": f"{c} b{w[1]}", "feature": float(drawn[c].item_numbers[i])} for c, i, w in words
        ),
        np.zeros(len(catalog)),
        {user: {"campaign": user.partition("/")[0]} for user in {*(row[0] for row in rows), *shows.users}},
        _TOLD,
        shows=shows,
    )


def _visitors(campaign: Campaign, log: BanditLog) -> list[str]:
    return [f"{campaign}/" + "-".join(word[:6] for word in words) for words in log.users.tolist()]


def _events(campaign: Campaign, log: BanditLog, start: int) -> Iterator[tuple[str, int, str, float]]:
    """Impressions and clicks, and each visitor's earlier clicks once, before the first row that knows of them."""
    known: set[tuple[str, bytes]] = set()
    order = np.argsort(log.timestamps, kind="stable")
    users = _visitors(campaign, log)
    for row in order.tolist():
        user, item, at = users[row], start + int(log.actions[row]), float(log.timestamps[row])
        earlier = log.affinities[row]
        if earlier.any() and (user, earlier.tobytes()) not in known:
            known.add((user, earlier.tobytes()))
            yield from ((user, start + int(code), "clicked-before", at - 1) for code in np.flatnonzero(earlier > 0))
        yield user, item, "shown", at
        if log.rewards[row] > 0:
            yield user, item, "click", at


def _shows(logs: Logs, starts: Mapping[Campaign, int]) -> LoggedShows:
    return LoggedShows(
        tuple(user for c in CAMPAIGNS for user in _visitors(c, logs[c])),
        np.concatenate([logs[c].actions + np.int32(starts[c]) for c in CAMPAIGNS]),
        np.concatenate([logs[c].rewards for c in CAMPAIGNS]),
        np.concatenate([logs[c].propensities for c in CAMPAIGNS]),
    )
