"""What a privacy plan promises and costs, before anybody trains: figures for `fedrec privacy plan` and its plot."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedrec.privacy.accounting import checked_epsilon, epsilon_pld, epsilon_prv
from fedrec.privacy.plan import PartShare, PrivacyPlan, calibrate
from fedrec.privacy.statement import other_partner_epsilon, partner_alone_epsilon
from fedrec_sim.plots import Line, plot_rounds, standalone

_POINTS = 60  # of the curve; each is an account of its own


@dataclass(frozen=True)
class Question:
    """What is asked of a plan. Public.

    Attributes:
        shares: the parts, each with its rounds (a round is a step), sampling, clip norm and share of the budget.
        users: of all partners together, as they would be declared.
        partners, quorum: how many there are, and whose noise adds up in `secagg` mode.
    """

    shares: tuple[PartShare, ...]
    users: int
    epsilon: float
    delta: float
    partners: int
    quorum: int

    @property
    def rounds(self) -> int:
        """Of all parts."""
        return sum(steps for _, steps, *_ in self.shares)


def plan_costs(question: Question) -> dict[str, Any]:
    """The calibrated plan, what both accountants say, its cost in the two modes, and epsilon after each round.

    Raises: PrivacyError: a wrong figure, or accountants that disagree.
    """
    plan = calibrate(question.shares, question.epsilon, question.delta, "secagg", question.quorum)
    return {
        "users": question.users,
        "partners": question.partners,
        "quorum": question.quorum,
        "rounds": question.rounds,
        "epsilon_asked": question.epsilon,
        "epsilon": checked_epsilon(plan.events(), plan.delta),
        "epsilon_prv": epsilon_prv(plan.events(), plan.delta),
        "delta": plan.delta,
        "parts": list(plan.to_dict()["parts"]),
        "modes": {
            "inspect": _mode_costs(replace(plan, mode="inspect", quorum=1), question),
            "secagg": _mode_costs(plan, question),
        },
        "epsilon_by_round": [{"round": rounds, "epsilon": cost} for rounds, cost in _by_round(plan)],
        "warnings": _warnings(question),
    }


def _mode_costs(plan: PrivacyPlan, question: Question) -> dict[str, Any]:
    """Epsilon against each adversary, and what the noise does to a step of each part."""
    summed = question.partners if plan.mode == "inspect" else question.partners / question.quorum
    return {
        "plan": plan.to_dict(),
        "plan_hash": plan.hash,
        "epsilon_against_the_coordinator": plan.epsilon(),
        "epsilon_against_another_partner": other_partner_epsilon(plan),
        "epsilon_of_one_answer_opened": partner_alone_epsilon(plan),
        "noise": [
            {
                "part": part.part,
                "noise_std_of_one_partner": plan.noise_std(part.part),
                "noise_std_of_the_sum": plan.noise_std(part.part) * question.partners**0.5,
                "noise_over_signal": part.noise_multiplier * summed**0.5 / (part.sampling_prob * question.users),
            }
            for part in plan.parts
        ],
    }


def _by_round(plan: PrivacyPlan) -> list[tuple[int, float]]:
    """Epsilon after so many rounds, parts one after the other; not more than some 60 points, the ends among them."""
    whole = sum(part.total_steps for part in plan.parts)
    stride = -(-whole // _POINTS)
    return [(rounds, epsilon_pld(_first_rounds(plan, rounds), plan.delta)) for rounds in _strided(whole, stride)]


def _strided(whole: int, stride: int) -> list[int]:
    return sorted({1, *range(stride, whole + 1, stride), whole})


def _first_rounds(plan: PrivacyPlan, rounds: int) -> Any:
    done = {}
    for part in plan.parts:
        done[part.part] = min(part.total_steps, rounds)
        rounds -= done[part.part]
    return plan.events(done)


def _warnings(question: Question) -> list[str]:
    warnings = []
    if question.delta >= 1 / question.users:
        warnings.append(
            f"delta {question.delta:g} is not below 1/users = {1 / question.users:.2g}: publishing one user at random "
            "would satisfy it; choose a smaller one"
        )
    if question.epsilon > 10:
        warnings.append(
            f"epsilon {question.epsilon:g} promises little: odds may change by a factor of e**{question.epsilon:g}"
        )
    if question.quorum == 1 and question.partners > 1:
        warnings.append("with quorum 1 the secagg mode adds no shares: it costs what inspect costs")
    return warnings


def epsilon_plot(costs: dict[str, Any]) -> str:
    """Epsilon after each round as a standalone SVG file's text."""
    curve: Sequence[dict[str, Any]] = costs["epsilon_by_round"]
    rounds, values = [point["round"] for point in curve], [point["epsilon"] for point in curve]
    line = Line("epsilon spent", 0, rounds, values, values, values)
    alt = f"Epsilon after each of {costs['rounds']} rounds, up to {values[-1]:.2f} at delta {costs['delta']:g}"
    starts = [1 + sum(p["total_steps"] for p in costs["parts"][:i]) for i in range(1, len(costs["parts"]))]
    svg = plot_rounds([line], name="epsilon", alt=alt, ceiling=costs["epsilon_asked"], part_starts=starts)
    return standalone(svg)
