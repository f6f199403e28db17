"""What an adapter promises, as figures and in words; goes with every version as `privacy.json`."""

from typing import Any, Literal

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import checked_epsilon, found_rate_at_most
from fedrec.privacy.mechanism import Event
from fedrec.privacy.plan import PrivacyPlan

NoiseOrigin = Literal["seeded", "secret"]
# At which the statement says how many people an attacker can find.
FALSE_ALARM_RATE = 0.01


def privacy_statement(
    plan: PrivacyPlan | None,
    *,
    noise_source: NoiseOrigin,
    simulated: bool,
    masked: bool = False,
    public_data: str | None = None,
    start: Literal["nothing", "catalog"] = "nothing",
    user_is: str | None = None,
) -> dict[str, Any]:
    """The statement of a plan that is carried out in full, or in part.

    Args:
        plan: None for training without privacy.
        noise_source: `seeded` noise can be recomputed by whoever knows the run's seed.
        simulated: all partners in one process, with everybody's keys.
        masked: in `secagg` mode, that answers were added up under masks.
        public_data: name of published interactions that training started from, if any.
        start: what the first adapter had learnt before any row was read: nothing, or walks over the public catalogue.
        user_is: what plays a user's part where rows name no people, say "one text"; None: a person.
    Raises: PrivacyError: `secagg` mode in earnest without masks; accountants that disagree.
    """
    if plan is not None and plan.mode == "secagg" and not (simulated or masked):
        raise PrivacyError("secagg mode without masks hides no answer", "add up under masks, or choose inspect mode")
    if plan is None:
        return {
            "unit": "user",
            "mode": "none",
            "epsilon": None,
            "delta": None,
            "assumption": "none: no privacy is claimed",
        }
    return {
        "unit": plan.unit,
        "mode": plan.mode,
        "epsilon": checked_epsilon(plan.events(), plan.delta),
        "delta": plan.delta,
        "plan_hash": plan.hash,
        "partner_alone_epsilon": partner_alone_epsilon(plan),
        "other_partner_epsilon": other_partner_epsilon(plan),
        "false_alarm_rate": FALSE_ALARM_RATE,
        "found_rate_at_most": found_rate_at_most(plan.events(), FALSE_ALARM_RATE),
        "other_partner_found_rate_at_most": found_rate_at_most(_left_to_other_partner(plan), FALSE_ALARM_RATE),
        "partner_alone_found_rate_at_most": found_rate_at_most(_left_alone(plan), FALSE_ALARM_RATE),
        "simulated": simulated,
        "masked": masked,
        "assumption": _assumption(plan, masked=masked, simulated=simulated),
        "noise_source": noise_source,
        "noise_caveat": _caveat(noise_source),
        **({"user_is": user_is} if user_is else {}),
        "covers": f"adding or removing {user_is or 'one user with all interactions'}, at one partner, over all rounds "
        "of this adapter's training; a further attempt is a step of the plan, which has no more than it says",
        "does_not_cover": [
            _other_trainings(simulated),
            *_several_units(user_is),
            "a person who is a user of several partners: counts once at each",
            "settings that were chosen by trying them on the same data",
            "how many users there are in all, which the size of a step tells",
            "how long a partner takes to answer",
            "held-out evaluation by the simulation harness, which stays out of the adapter",
            "recommendations themselves, which a partner shows to its own users only",
            *([f"the people in {public_data}, published data that training starts from"] if public_data else []),
        ],
        "public_data": public_data,
        "start": start,
        "parts": [
            {
                "part": part.part,
                "steps": part.total_steps,
                "sampling_prob": part.sampling_prob,
                "l2_clip_norm": part.l2_clip_norm,
                "noise_multiplier": part.noise_multiplier,
            }
            for part in plan.parts
        ],
    }


def _several_units(user_is: str | None) -> list[str]:
    return (
        [f"a person as a whole: whoever is behind several users counts as so many, {user_is} each"] if user_is else []
    )


def partner_alone_epsilon(plan: PrivacyPlan) -> float:
    """Epsilon against somebody who sees each partner's own update: with its noise share alone."""
    return checked_epsilon(_left_alone(plan), plan.delta, tolerance=None)


def other_partner_epsilon(plan: PrivacyPlan) -> float:
    """Epsilon against one of the other partners, who knows its own share of a sum's noise and can take it off."""
    return checked_epsilon(_left_to_other_partner(plan), plan.delta, tolerance=None)


def _left_alone(plan: PrivacyPlan) -> list[Event]:
    return _with_noise_left(plan, 1.0 if plan.mode == "inspect" else 1 / plan.quorum)


def _left_to_other_partner(plan: PrivacyPlan) -> list[Event]:
    left = min(max(plan.quorum + plan.dishonest - 1, 1), plan.quorum)
    return _with_noise_left(plan, 1.0 if plan.mode == "inspect" else left / plan.quorum)


def _with_noise_left(plan: PrivacyPlan, share: float) -> list[Event]:
    """What is charged when only a share of the noise's variance is left."""
    return [(part, prob, noise * share**0.5, steps) for part, prob, noise, steps in plan.events()]


def _other_trainings(simulated: bool) -> str:
    what = "other trainings on the same data that the partner's ledger does not hold"
    return f"{what}: in a simulation each row and seed has ledgers of its own" if simulated else what


def _assumption(plan: PrivacyPlan, *, masked: bool, simulated: bool) -> str:
    if plan.mode == "inspect":
        return "none about other partners or the coordinator: each partner's own noise gives the guarantee"
    least = plan.quorum + plan.dishonest
    shares = f"the coordinator sees only the sum, and all {plan.quorum} partners that the noise is sized for add"
    if plan.dishonest:
        shares = (
            f"the coordinator sees only a sum of {least} partners or more, of whom {plan.dishonest} may tell it all "
            f"they know and add no noise: the noise is sized for the other {plan.quorum}, who add"
        )
    words = (
        f"{shares} their share honestly; then epsilon holds against the coordinator and everybody who is handed the "
        "adapter. One of the partners knows its own share of the noise: other_partner_epsilon holds against it. If "
        "the assumption fails altogether, partner_alone_epsilon is what is left. "
    )
    if not masked:
        return f"{words}The sum is simulated in one process here: nothing is masked."
    words += (
        "Masks hide all but the sum from a coordinator that does anything it likes together with fewer than a third "
        "of the partners asked (of more than 100 asked, with a tenth), as docs/secagg.md argues."
    )
    return f"{words} Here all partners ran in one process, which had everybody's keys." if simulated else words


def _caveat(noise_source: NoiseOrigin) -> str:
    if noise_source == "secret":
        return "the noise key never leaves the run folder"
    return (
        "noise is derived from the run's seed so that the run can be repeated: a simulation, no protection in earnest"
    )
