"""What must hold of privacy for any input."""

import dataclasses
import json
import math
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.errors import BudgetError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.clipping import clip_and_add, clip_and_sum
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.mechanism import Event
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import Mode, PartPlan, PrivacyPlan
from fedrec.privacy.sampling import poisson_sample
from fedrec_sim.seeds import seeded_root

NUMBERS = st.floats(width=32)  # with NaN, infinities, subnormals and giants
ROWS = arrays(np.float32, st.tuples(st.integers(0, 6), st.just(5)), elements=NUMBERS)
NORMS = st.floats(1e-6, 1e6)
PROBS = st.floats(0.01, 1.0) | st.just(1.0)
EVENTS = st.lists(st.tuples(st.sampled_from("ab"), PROBS, st.floats(0.5, 50.0), st.integers(1, 20)), max_size=3)


@settings(deadline=None)
@given(ROWS, arrays(np.float32, 5, elements=NUMBERS), NORMS)
def test_one_user_moves_the_sum_by_at_most_the_norm(rows: np.ndarray, user: np.ndarray, norm: float) -> None:
    without = clip_and_sum(torch.from_numpy(rows), norm).value.double()
    with_user = clip_and_sum(torch.from_numpy(np.vstack([rows, user])), norm).value.double()
    # The float32 rounding of the sum itself: at most 7 users, each below the norm.
    assert float((with_user - without).norm()) <= norm * (1 + 7 * 7 * 2**-23)


@given(arrays(np.float32, (1, 5), elements=NUMBERS), NORMS)
def test_a_single_user_is_within_the_norm_exactly(row: np.ndarray, norm: float) -> None:
    assert float(clip_and_sum(torch.from_numpy(row), norm).value.double().norm()) <= norm


@settings(deadline=None)
@given(ROWS, NORMS, st.integers(0, 6))
def test_microbatches_and_parameter_lists_change_nothing(rows: np.ndarray, norm: float, cut: int) -> None:
    whole = torch.from_numpy(rows)
    expected = clip_and_sum(whole, norm).value
    in_two = clip_and_add(clip_and_sum(whole[:cut], norm), [whole[cut:, :2], whole[cut:, 2:]]).value
    torch.testing.assert_close(in_two, expected, rtol=1e-4, atol=1e-5 * norm)


@settings(deadline=None, max_examples=12)
@given(EVENTS, st.randoms(use_true_random=False))
def test_order_and_splitting_of_events_do_not_matter(events: list[Event], random: Random) -> None:
    singles = [(part, prob, noise, 1) for part, prob, noise, steps in events for _ in range(steps)]
    random.shuffle(singles)
    assert epsilon_pld(singles, 1e-5) == epsilon_pld(events, 1e-5)


@settings(deadline=None, max_examples=12)
@given(EVENTS, st.floats(0.01, 1.0), st.floats(0.5, 50.0))
def test_more_is_never_cheaper(events: list[Event], prob: float, noise: float) -> None:
    before = epsilon_pld(events, 1e-5)
    after = epsilon_pld([*events, ("c", prob, noise, 1)], 1e-5)
    assert after >= before - 0.003  # a new event may make the grid of losses finer
    assert epsilon_pld([*events, ("c", prob, 1.5 * noise, 1)], 1e-5) <= after + 0.003


@given(st.integers(0, 200), st.floats(0, 1, exclude_min=True), st.integers(0, 2**32))
def test_a_sample_is_a_subset_in_order(n_users: int, prob: float, seed: int) -> None:
    taken = poisson_sample(n_users, prob, NoiseSource.from_root(seeded_root(seed), b"x"))
    assert np.array_equal(taken, np.intersect1d(taken, np.arange(n_users)))


PARTS = st.builds(
    PartPlan,
    part=st.text(min_size=1),
    sampling_prob=st.floats(0, 1, exclude_min=True),
    l2_clip_norm=st.floats(1e-30, 1e30),
    noise_multiplier=st.floats(0, exclude_min=True, allow_infinity=False),
    total_steps=st.integers(1),
)


@given(
    st.sampled_from(["inspect", "secagg"]),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.lists(PARTS, min_size=1, max_size=3, unique_by=lambda p: p.part),
    st.integers(1, 1000),
)
def test_a_plan_survives_json_with_its_hash(mode: Mode, delta: float, parts: list[PartPlan], quorum: int) -> None:
    plan = PrivacyPlan("user", mode, delta, tuple(parts), quorum)
    again = PrivacyPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.hash == plan.hash
    assert dataclasses.replace(plan, delta=math.nextafter(delta, 0.5)).hash != plan.hash or delta == 0.5


@settings(deadline=None, max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6))
def test_ledger_spends_each_event_once_and_never_the_budget(uses: list[tuple[int, bool]]) -> None:
    """Repeats, crashes before release, a budget of three: spent is what the distinct events cost."""
    cost: dict[str, Any] = {"plan_hash": "p", "part": "a", "sampling_prob": 1.0, "noise_multiplier": 2.0}
    cost |= {"run": "r", "most_steps": 10_000}
    costs = [epsilon_pld([("a", 1.0, 2.0, n)], 1e-5) if n else 0.0 for n in range(4)]
    reserved: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        path, owner = Path(folder) / "l.sqlite", {"partner": "shop", "dataset": "sales"}
        PrivacyLedger.create(path, **owner, budget_epsilon=costs[3], budget_delta=1e-5)
        for event, crashes in uses:
            ledger = PrivacyLedger.open(path, **owner)
            if event not in reserved and len(reserved) == 3:
                with pytest.raises(BudgetError):
                    ledger.reserve(str(event), **cost, steps=1)
                continue
            ledger.reserve(str(event), **cost, steps=1)
            reserved.add(event)
            if not crashes:
                ledger.release(str(event), "h")
            assert ledger.spent()[0] == costs[len(reserved)]
