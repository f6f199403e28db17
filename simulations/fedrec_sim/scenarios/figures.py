"""What a scenario's lists are worth, beyond HR and NDCG. Exact and private, as the lists are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec.config import ScenarioConfig
from fedrec.data.scene import LoggedShows, Scene
from fedrec.evaluation.metrics import METRICS, MetricSums
from fedrec.evaluation.off_policy import Evidence, terms_of
from fedrec.fairness.figures import NOTHING, Served, exposure_shares, gini
from fedrec.fairness.groups import by_category, by_labels
from fedrec.recommend.popularity import divergence
from fedrec_sim.fairness.lists import hits
from fedrec_sim.scenarios.lists import PLACES, Lists

Figures = dict[str, float]
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Answers:
    """What lists are held against. Private.

    Attributes:
        targets: int64 `[people]`, what each turned to next.
        strengths: float64 `[people]`, how much that counted, by the weights of its events.
        histories: what each was known to have.
        popularity: `[items]`, in training.
        now: Unix seconds at which lists are made.
    """

    targets: NDArray[np.int64] = field(repr=False)
    strengths: NDArray[np.float64] = field(repr=False)
    histories: Sequence[NDArray[np.int32]] = field(repr=False)
    popularity: NDArray[np.float64] = field(repr=False)
    now: float = 0.0


def figures_of(lists: Lists, scene: Scene, scenario: ScenarioConfig, answers: Answers) -> Figures:
    """HR@10 and NDCG@10, and the scenario's own metrics but for `policy_value`, which wants a log."""
    hr, ndcg = hits(lists, answers.targets)
    found = {"hr@10": float(hr.mean()), "ndcg@10": float(ndcg.mean())}
    for metric in scenario.metrics:
        match metric:
            case "value":
                found[metric] = float(hr @ answers.strengths / answers.strengths.sum())
            case "coverage":
                found[metric] = len(np.unique(lists[lists != NOTHING])) / len(scene.catalog)
            case "novelty":
                found[metric] = _novelty(lists, answers.popularity)
            case "miscalibration":
                found[metric] = _miscalibration(lists, scene, answers.histories)
            case "categories":
                found[metric] = float(np.mean([_n_categories(scene, row) for row in lists]))
            case "familiar":
                found[metric] = _familiar(lists, _providers(scene, scenario), answers.histories)
            case "provider_gini":
                found[metric] = _provider_gini(lists, _providers(scene, scenario))
            case "age_days":
                found[metric] = float(np.median((answers.now - scene.appeared[lists[lists != NOTHING]]) / _DAY_S))
            case "policy_value":
                pass
    return found


def policy_value(lists: Lists, of: NDArray[np.int64], shows: LoggedShows) -> Figures:
    """Clicks a showing of somebody who draws from these lists, each place alike, from a log of another policy.

    Self-normalised weights (SNIPS); the standard error is of the log's rows, to first order.

    Args:
        lists: `[people, PLACES]`.
        of: `[rows]`, whose list counts in each row of the log.
    """
    target = (lists[of] == shows.items[:, None]).sum(1) / PLACES
    nothing = np.zeros(len(of))
    terms = terms_of("snips", Evidence(shows.rewards, target, shows.propensities, nothing, nothing))
    return {"policy_value": terms.value(), "policy_value_se": terms.standard_error()}


def _novelty(lists: Lists, popularity: NDArray[np.float64]) -> float:
    exposure = np.bincount(lists[lists != NOTHING], minlength=len(popularity))
    return MetricSums(len(lists), np.zeros(len(METRICS)), exposure).novelty(popularity)


def _miscalibration(lists: Lists, scene: Scene, histories: Sequence[NDArray[np.int32]]) -> float:
    """Mean KL of the categories of a history from those of the list, nats. Reference: Steck 2018, equation 6."""
    weights = by_category(scene.catalog).weights
    wanted = np.stack([weights[:, history].sum(1) / max(len(history), 1) for history in histories])
    counts = np.stack([weights[:, row[row != NOTHING]].sum(1) for row in lists])
    return float(divergence(wanted, counts).mean())


def _n_categories(scene: Scene, row: NDArray[np.int64]) -> int:
    return len({kind for code in row[row != NOTHING] for kind in scene.catalog.categories[code]})


def _providers(scene: Scene, scenario: ScenarioConfig) -> list[str]:
    return [str(own.get(scenario.provider, "unknown")) for own in scene.fields]


def _familiar(lists: Lists, providers: Sequence[str], histories: Sequence[NDArray[np.int32]]) -> float:
    """Share of all places whose provider is in the history."""
    codes = np.unique(providers, return_inverse=True)[1]
    known = [np.isin(codes[row[row != NOTHING]], codes[own]) for row, own in zip(lists, histories, strict=True)]
    return float(np.concatenate(known).mean())


def _provider_gini(lists: Lists, providers: Sequence[str]) -> float:
    """How unequally providers are exposed: 0 all alike, near 1 one alone."""
    groups = by_labels("provider", [(name,) for name in providers])
    shares = exposure_shares(Served(lists, np.zeros(len(lists)), ()), groups)
    return gini(list(shares.values()), len(groups.names))
