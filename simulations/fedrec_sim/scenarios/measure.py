"""What a row is worth in its scenario: lists with the rules and without, and what each rule did."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fedrec.data.interactions import InteractionTable
from fedrec.data.scene import Fields, Scene
from fedrec.evaluation.protocol import Scorer
from fedrec.fairness.figures import NOTHING
from fedrec_sim.fairness.lists import Asked
from fedrec_sim.run import Json
from fedrec_sim.scenarios.figures import Answers, Figures, figures_of, policy_value
from fedrec_sim.scenarios.lists import Lister, Lists, Questions, in_nats
from fedrec_sim.world import Corpus, World

_BATCH = 128


def measure_row(world: World, corpus: Corpus, scorer: Scorer, row: str, seed: int) -> Json:
    """Figures of a trained row: `plain`, `ruled`, and of each rule how many lists and places it changed.

    Args:
        scorer: of the row, as it ranks test items.
        seed: draws whose lists rules are told of.
    Privacy: exact figures of private rows, for the simulation's own report.
    """
    scene, scenario = world.scene, world.config.scenario
    assert scene is not None
    assert scenario is not None
    lister = Lister(scene, scenario, corpus.popularity)
    asked = Asked.of(scorer, corpus.splits)
    by_user = {split.user: split.history("test") for split in corpus.splits}
    histories = [by_user[user] for user in asked.users]
    questions = Questions(in_nats(asked.scores, row), histories, [scene.labels.get(user, {}) for user in asked.users])
    answers = Answers(asked.targets, strengths_of(world.table, asked), histories, corpus.popularity, lister.now)
    lists = {"plain": lister.plain(questions), "ruled": lister.ruled(questions)}
    found: Json = {name: figures_of(own, scene, scenario, answers) for name, own in lists.items()}
    if "policy_value" in scenario.metrics:
        for name, value in _policy_values(scene, corpus, scorer, row, lister).items():
            found[name] |= value
    chosen = np.sort(np.random.default_rng(seed).permutation(len(histories))[: scenario.lists])
    sample = questions.of(chosen)
    changed = {
        rule.name: changes(lists["ruled"][chosen], lister.ruled(sample, rule.name)) for rule in lister.book.rules
    }
    return found | {"people": len(histories), "sample": len(chosen), "rules": changed}


def changes(with_it: Lists, without: Lists) -> Figures:
    """Share of lists that are not the same without a rule, and places a list that it gave to another item."""
    differs = (with_it != without).any(1)
    places = [
        len(set(own) - set(other) - {NOTHING}) for own, other in zip(with_it.tolist(), without.tolist(), strict=True)
    ]
    return {"lists": float(differs.mean()), "places": float(np.mean(places))}


def strengths_of(table: object, asked: Asked) -> NDArray[np.float64]:
    """How much each target counted, by the weights of its events: `[people]`."""
    assert isinstance(table, InteractionTable)
    shape = (table.n_users, table.n_items)
    strengths = sparse.csr_array((table.rating.astype(np.float64), (table.user_codes, table.item_codes)), shape=shape)
    place = {user: at for at, user in enumerate(table.user_ids)}
    return np.array([strengths[place[user], item] for user, item in zip(asked.users, asked.targets, strict=True)])


def _policy_values(scene: Scene, corpus: Corpus, scorer: Scorer, row: str, lister: Lister) -> dict[str, Figures]:
    """Of lists for everybody in the log. What somebody has clicked may be shown again: others of the group look."""
    assert scene.shows is not None
    whole = {split.user: np.concatenate([split.history("test"), split.test]) for split in corpus.splits}
    # Whoever is known by as much gets the same list: of most nothing is known but the shop.
    alike = dict[tuple[bytes, str], int]()
    histories, labels, of = list[NDArray[np.int32]](), list[Fields](), list[int]()
    for user in scene.shows.users:
        history, own = whole.get(user, np.zeros(0, np.int32)), scene.labels.get(user, {})
        place = alike.setdefault((history.tobytes(), repr(sorted(own.items()))), len(alike))
        if place == len(histories):
            histories.append(history)
            labels.append(own)
        of.append(place)
    asked = Questions(in_nats(_scores(scorer, histories), row), histories, labels)
    return {
        "plain": policy_value(lister.plain(asked), np.array(of), scene.shows),
        "ruled": policy_value(lister.ruled(asked), np.array(of), scene.shows),
    }


def _scores(scorer: Scorer, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    pieces = [scorer.score(histories[at : at + _BATCH]) for at in range(0, len(histories), _BATCH)]
    return np.concatenate(pieces).astype(np.float32)
