"""Figures of fairness of a finished run on MovieLens-100K, before floors and after, exact and released."""

import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.data.movielens_people import load_people
from fedrec.data.partition import deal_users
from fedrec.data.sources import fetch
from fedrec.errors import ConfigError
from fedrec.fairness.figures import Served, exact_figures, exposure_shares
from fedrec.fairness.groups import ItemGroups, PeopleGroups, by_bounds, by_category, by_label, popularity_tiers
from fedrec.fairness.release import FairnessQuery, Released, figures_of, release_fairness
from fedrec.model.recommender import item_token_model
from fedrec.model.shared import sentences_of
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.noise import NoiseSource
from fedrec.recommend.floors import FairShares, FloorController
from fedrec_sim.fairness.lists import Asked, Lister, hits
from fedrec_sim.fairness.screening import screening
from fedrec_sim.run import Json, read_run
from fedrec_sim.serving import load_adapter
from fedrec_sim.world import World, load_world, on_any_device

Say = Callable[[str], None]
DELTA = 1e-4
GENDERS = ("F", "M")
# Fixed before anybody's data are read, and never after them.
AGES = {"under 25": 25.0, "25 to 34": 35.0, "35 to 49": 50.0, "50 and more": np.inf}
ACTIVITY = {"under 50 items": 50.0, "50 to 149": 150.0, "150 and more": np.inf}
TAIL_SHARES = (0.05, 0.1, 0.2, 0.3)
_WARM = 2
_BOOTSTRAP = 1000


def measure(folder: Path, epsilons: tuple[float, ...], seeds: tuple[int, ...], say: Say) -> Json:
    """All of it. Raises ConfigError: the run is not of MovieLens-100K; RunError: it has no adapter."""
    run = read_run(folder)
    if run.config.data.source != "ml-100k" or run.config.evaluation.protocol != "B":
        raise ConfigError("who people are is known of MovieLens-100K alone, under protocol B", "name the demo's run")
    world = load_world(on_any_device(run.config), say)
    adapter = load_adapter(run, world)
    say("scoring the catalogue for everybody")
    seed = run.config.seeds[0]
    asked = Asked.of(adapter.recommender, world.corpus(seed).splits)
    tokens = item_token_model(adapter.recommender.model)
    tiers = popularity_tiers(tokens.popularity.histogram.detach().cpu().numpy())
    bench = Bench(world, asked, (tiers, by_category(world.catalog)), people_of(asked))
    plain = bench.served(bench.lister.every(asked, None))
    say("floors for the tail, list by list and over all lists")
    floors = bench.floors(tiers, seeds, say)
    say("the same figures as they would leave partners; then the screen for harmful items")
    sentences = sentences_of(run.config.model)
    return {
        "run": run.config.name,
        "adapter": adapter.card.version,
        "protocol": "B",
        "which": "test",
        "split_seed": seed,
        "seeds": list(seeds),
        "places": 10,
        "before": bench.told(plain),
        "floors": floors,
        "released": bench.released(plain, epsilons, seeds, run.config.partners),
        "screening": None if sentences is None else screening(sentences, world.catalog),
    }


def people_of(asked: Asked) -> tuple[PeopleGroups, ...]:
    """By gender, age, and how much of them is known. Private."""
    known = load_people(fetch("ml-100k"))
    people = [known[user] for user in asked.users]
    return (
        by_label("gender", [one.gender for one in people], GENDERS),
        by_bounds("age", np.array([one.age for one in people]), AGES),
        by_bounds("activity", asked.lengths, ACTIVITY),
    )


class Bench:
    """What lists are held against."""

    def __init__(
        self, world: World, asked: Asked, items: tuple[ItemGroups, ...], people: tuple[PeopleGroups, ...]
    ) -> None:
        self._catalog, self._asked, self._items, self._people = world.catalog, asked, items, people
        self.lister = Lister(len(world.catalog))

    def served(self, lists: NDArray[np.int64]) -> Served:
        """With HR@10 as quality."""
        return Served(lists, hits(lists, self._asked.targets)[0], self._people)

    def told(self, served: Served) -> Json:
        """Exact figures, with bootstrap intervals over people for the whole."""
        hr, ndcg = hits(served.lists, self._asked.targets)
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(hr), size=(_BOOTSTRAP, len(hr)))
        spread = {name: float(values[drawn].mean(1).std()) for name, values in (("hr@10", hr), ("ndcg@10", ndcg))}
        shares = {one.name: dict(zip(one.names, one.weights.mean(1).tolist(), strict=True)) for one in self._items}
        return exact_figures(served, self._items) | {
            "hr@10": float(hr.mean()),
            "ndcg@10": float(ndcg.mean()),
            "standard_error": spread,
            "share_of_catalogue": shares,
            "coverage@10": len(np.unique(served.lists)) / len(self._catalog),
        }

    def floors(self, tiers: ItemGroups, seeds: tuple[int, ...], say: Say) -> list[Json]:
        """A row for each share of the tail and each way of keeping to it."""
        tail = tiers.names.index("tail")
        members = tiers.members[[tail]]
        found = []
        for share in TAIL_SHARES:
            fair = FairShares(("tail",), np.array([share]), members, np.zeros(1), is_each=True)
            each = self.told(self.served(self.lister.every(self._asked, fair)))
            found.append({"way": "each", "tail_share": share, **each})
            runs = [self._amortised(fair, share, seed) for seed in seeds]
            found.append({"way": "amortised", "tail_share": share, **runs[0], "over_seeds": _over(runs)})
            say(f"tail {share:g}: NDCG@10 {each['ndcg@10']:.4f} each, {runs[0]['ndcg@10']:.4f} amortised")
        return found

    def _amortised(self, fair: FairShares, share: float, seed: int) -> Json:
        controller = FloorController({"tail": share})
        rng = np.random.default_rng(seed)
        return self.told(self.served(self.lister.amortised(self._asked, controller, fair, rng, _WARM)))

    def released(self, served: Served, epsilons: tuple[float, ...], seeds: tuple[int, ...], partners: int) -> Json:
        """What leaves at each epsilon: of one partner with everybody, and of all partners added up."""
        query = FairnessQuery("hr@10", self._items, tuple((one.name, one.names) for one in self._people))
        found: Json = {"delta": DELTA, "unit": "user", "l2_norm": query.l2_norm, "epsilons": []}
        for epsilon in epsilons:
            row: Json = {"epsilon": epsilon}
            for name, n in (("one_partner", 1), (f"{partners}_partners", partners)):
                tries = [self._release(query, served, epsilon, n, seed) for seed in seeds]
                row[name] = {"noise_std": tries[0][0].noise_std, "epsilon_charged": tries[0][1]}
                told = [figures_of(query, one) for one, _ in tries]
                row[name] |= told[0] | {"errors": _errors(told, served, self._items)}
            found["epsilons"].append(row)
        return found

    def _release(
        self, query: FairnessQuery, served: Served, epsilon: float, partners: int, seed: int
    ) -> tuple[Released, float]:
        """Every partner pays into a ledger of its own; the run's own ledgers are not touched. Noise is seeded."""
        plan, whole, spent = query.plan(epsilon, DELTA), None, 0.0
        with tempfile.TemporaryDirectory(prefix="fedrec-fairness-") as folder:
            for number, users in enumerate(deal_users(len(served.quality), partners, seed)):
                ledger = PrivacyLedger.create(
                    Path(folder) / f"{number}.sqlite",
                    partner=f"partner-{number}",
                    dataset="ml-100k",
                    budget_epsilon=epsilon,
                    budget_delta=DELTA,
                )
                event = hashlib.sha256(f"{query.hash}|{plan.hash}|{seed}|{number}".encode()).hexdigest()
                root = hashlib.sha256(f"fairness bench, seed {seed}".encode()).digest()
                source = NoiseSource.from_root(root, event.encode())
                read = partial(served.of, users)
                one = release_fairness(query, read, plan, ledger, source, run="bench", event=event)
                whole, spent = one if whole is None else whole.plus(one), max(spent, ledger.spent()[0])
        assert whole is not None
        return whole, spent


def _over(runs: list[Json]) -> Json:
    """Mean and standard deviation over seeds."""
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
        for name, values in {
            "hr@10": [one["hr@10"] for one in runs],
            "ndcg@10": [one["ndcg@10"] for one in runs],
            "tail": [one["exposure"]["popularity"]["tail"] for one in runs],
        }.items()
    }


def _errors(told: list[Json], served: Served, items: tuple[ItemGroups, ...]) -> Json:
    """How far what leaves is from the exact figure: largest over seeds and groups, and how much was shown."""
    exact = exact_figures(served, items)
    shares, means, shown, asked = [0.0], [0.0], 0, 0
    for one in told:
        for name, division in one["exposure"].items():
            true = exposure_shares(served, next(groups for groups in items if groups.name == name))
            shares += [abs(group["share"] - true[key]) for key, group in division["groups"].items()]
        for name, division in one["quality_by_group"].items():
            for key, group in division["groups"].items():
                asked, shown = asked + 1, shown + group["is_shown"]
                if group["is_shown"]:
                    means.append(abs(group["mean"] - exact["quality_by_group"][name]["groups"][key]["mean"]))
    return {"share": max(shares), "quality": max(means), "groups_shown": shown / len(told), "groups": asked / len(told)}
