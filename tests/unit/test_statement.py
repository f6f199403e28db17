"""What an adapter promises: the same figures for programs and for people, and nothing rounded in our favour."""

import dataclasses
import math
from typing import Any, Literal

import pytest
from scipy.stats import norm

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import found_rate_at_most
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.privacy.statement import NoiseOrigin, privacy_statement
from fedrec.privacy.statement_page import statement_page

HEAD = PartPlan("head", sampling_prob=1.0, l2_clip_norm=0.5, noise_multiplier=4.0, total_steps=10)
LORA = PartPlan("lora", sampling_prob=0.5, l2_clip_norm=0.1, noise_multiplier=4.0, total_steps=3)
SHARED = PrivacyPlan("user", "secagg", 1e-5, (HEAD, LORA), quorum=4)
ALONE = dataclasses.replace(SHARED, mode="inspect")


def state(plan: PrivacyPlan | None, noise: NoiseOrigin = "secret", simulated: bool | None = None) -> dict[str, Any]:
    """Simulated where it must be: nothing masks an answer yet."""
    simulated = plan is SHARED if simulated is None else simulated
    return privacy_statement(plan, noise_source=noise, simulated=simulated)


def test_secagg_without_masks_promises_nothing_in_earnest() -> None:
    with pytest.raises(PrivacyError, match="without masks"):
        state(SHARED, simulated=False)


def test_the_page_does_not_promise_the_noise_of_a_sum_against_a_coordinator_who_sees_the_answers() -> None:
    shared, alone = statement_page(state(SHARED), "x"), statement_page(state(ALONE), "x")
    opened = state(SHARED)["partner_alone_epsilon"]
    assert f"the coordinator can, as nothing is masked in a simulation | {opened:.2f}" in shared
    assert f"and the coordinator | {state(ALONE)['epsilon']:.2f}" in alone


def test_found_rate_is_that_of_the_best_test_against_a_gaussian() -> None:
    """Dong et al. 2022, arXiv:1905.02383, definition 5: found rate = Phi(mu + Phi^-1(false alarm rate))."""
    for mu in (0.3, 1.0, 3.0):
        for rate in (0.001, 0.01, 0.2):
            exact = norm.cdf(mu + norm.ppf(rate))
            assert exact * (1 - 1e-9) <= found_rate_at_most([("a", 1.0, 1 / mu, 1)], rate) <= exact + 0.01


def test_found_rate_grows_with_steps_and_never_beats_certainty() -> None:
    rates = [found_rate_at_most([("a", 0.5, 1.0, steps)], 0.01) for steps in (1, 10, 100, 10_000)]
    assert 0.01 < rates[0] < rates[1] < rates[2] <= rates[3] <= 1.0


def test_alone_all_adversaries_meet_the_same_noise() -> None:
    statement = state(ALONE)
    assert statement["epsilon"] == statement["other_partner_epsilon"] == statement["partner_alone_epsilon"]
    assert statement["plan_hash"] == ALONE.hash


def test_shared_noise_is_less_against_a_partner_and_least_for_an_opened_answer() -> None:
    statement = state(SHARED)
    assert statement["epsilon"] < statement["other_partner_epsilon"] < statement["partner_alone_epsilon"]
    rates = [statement[f"{who}found_rate_at_most"] for who in ("", "other_partner_", "partner_alone_")]
    assert rates == sorted(rates)
    assert "all 4 partners" in statement["assumption"]


@pytest.mark.parametrize("plan", [SHARED, ALONE])
def test_the_page_has_every_figure_of_the_statement(plan: PrivacyPlan) -> None:
    statement = state(plan)
    page = statement_page(statement, "round-0007")
    for name in ("epsilon", "other_partner_epsilon", "partner_alone_epsilon"):
        assert f"| {statement[name]:.2f} |" in page
    for part in statement["parts"]:
        assert f"| {part['part']} | {part['steps']} |" in page
    for item in statement["does_not_cover"]:
        assert f"- {item}\n" in page
    assert "round-0007" in page
    assert f"{plan.delta:g}" in page
    assert statement["assumption"][1:] in page


def test_people_found_are_rounded_up() -> None:
    statement = {**state(ALONE), "found_rate_at_most": 0.2501, "other_partner_found_rate_at_most": 0.99999}
    page = statement_page(statement, "x")
    assert "| 25.1 |" in page
    assert "| 100.0 |" in page


@pytest.mark.parametrize(("noise", "told"), [("seeded", True), ("secret", False)])
def test_a_page_made_with_seeded_noise_says_so(noise: NoiseOrigin, told: bool) -> None:
    assert ("can take it off" in statement_page(state(ALONE, noise), "x")) is told


def test_a_simulation_says_that_rows_have_ledgers_of_their_own() -> None:
    assert any("each row and seed" in item for item in state(ALONE, simulated=True)["does_not_cover"])
    assert not any("each row and seed" in item for item in state(ALONE, simulated=False)["does_not_cover"])


def test_without_privacy_the_page_promises_nothing() -> None:
    statement = state(None)
    assert statement["epsilon"] is None
    page = statement_page(statement, "x")
    assert "protects nobody" in page
    assert "epsilon" not in page


def test_a_statement_is_plain_json_without_infinities() -> None:
    values = [value for value in state(SHARED).values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in values)


def test_public_data_is_named_where_training_starts_from_it() -> None:
    without = state(ALONE)
    named = privacy_statement(ALONE, noise_source="secret", simulated=False, public_data="movielens-small")
    assert (without["public_data"], named["public_data"]) == (None, "movielens-small")
    assert without["epsilon"] == named["epsilon"]
    assert "movielens-small" in statement_page(named, "x")
    assert "movielens-small" not in statement_page(without, "x")


def test_where_a_text_plays_a_users_part_statement_and_page_say_so_and_promise_no_person() -> None:
    usual = privacy_statement(ALONE, noise_source="seeded", simulated=True)
    texts = privacy_statement(ALONE, noise_source="seeded", simulated=True, user_is="one text")
    assert texts["covers"].startswith("adding or removing one text, at one partner")
    assert any("one text each" in line for line in texts["does_not_cover"])
    assert "one text at a time" in statement_page(texts, "r")
    assert "each person, with everything" not in statement_page(texts, "r")
    assert "user_is" not in usual
    assert usual["covers"].startswith("adding or removing one user with all interactions, at one partner")


def test_the_page_says_where_the_first_weights_come_from() -> None:
    def page(start: Literal["nothing", "catalog"], data: str | None) -> str:
        told = privacy_statement(ALONE, noise_source="secret", simulated=False, public_data=data, start=start)
        return statement_page(told, "x")

    assert "walks over the public catalogue" in page("catalog", None)
    assert "were learnt from nobody" not in page("catalog", None)
    both = page("catalog", "movielens-small")
    assert "catalogue, which no person took (`start` in `privacy.json`) and from movielens-small" in both
    assert "walks" not in page("nothing", "movielens-small")
    assert "were learnt from nobody" in page("nothing", None)
    older = {name: value for name, value in state(ALONE).items() if name not in ("start", "public_data")}
    assert "were learnt from nobody" in statement_page(older, "x")
