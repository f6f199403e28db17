"""A scorer that knows only its training negatives must do no better than chance under sampled candidates."""

import numpy as np
import pytest

from fedrec.data.sequences import UserSequence
from fedrec.data.splits import EvaluationSplit, split_by
from fedrec.evaluation.protocol import PROTOCOLS, leak_hit_rate, training_negatives

N_USERS, N_ITEMS, SEEDS = 300, 220, (1, 2, 3)


def _splits(seed: int) -> list[EvaluationSplit]:
    rng = np.random.default_rng(seed)
    users = []
    for user in range(N_USERS):
        items = rng.choice(N_ITEMS, rng.integers(5, 60), replace=False).astype(np.int32)
        users.append(EvaluationSplit(user=f"u{user}", train=items[:-2], validation=items[-2:-1], test=items[-1:]))
    return users


def _leak(per_user: int, which: str, avoid_the_test_item: bool) -> float:
    rates = []
    for seed in SEEDS:
        splits = _splits(seed)
        negatives = training_negatives(splits, N_ITEMS, per_user, seed)
        if avoid_the_test_item:
            negatives = [np.setdiff1d(own, s.test) for own, s in zip(negatives, splits, strict=True)]
        rates.append(leak_hit_rate(splits, which, negatives, n_items=N_ITEMS, seed=seed))
    return float(np.mean(rates))


@pytest.mark.parametrize("which", ["validation", "test"])
@pytest.mark.parametrize("per_user", [40, 150, N_ITEMS])
def test_honest_negatives_give_nothing_away(per_user: int, which: str) -> None:
    # 10 of 100 by chance; the standard error over 900 users is .01.
    assert _leak(per_user, which, avoid_the_test_item=False) == pytest.approx(0.10, abs=0.035)


def _sequences(seed: int) -> list[UserSequence]:
    """Users of 10 to 60 items, each within a tenth of the whole time."""
    rng = np.random.default_rng(seed)
    users = []
    for user in range(N_USERS):
        n = int(rng.integers(10, 60))
        items, start = rng.choice(N_ITEMS, n, replace=False).astype(np.int32), rng.random()
        users.append(UserSequence(f"u{user}", items, np.sort(start + 0.1 * rng.random(n))))
    return users


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_protocol_gives_anything_away(protocol: str) -> None:
    rates = {False: [], True: []}
    for seed in SEEDS:
        splits = split_by(protocol, _sequences(seed), seed)  # type: ignore[arg-type]
        honest = training_negatives(splits, N_ITEMS, N_ITEMS // 2, seed)
        leaking = [np.setdiff1d(own, s.test) for own, s in zip(honest, splits, strict=True)]
        for leaks, negatives in ((False, honest), (True, leaking)):
            rates[leaks].append(leak_hit_rate(splits, "test", negatives, n_items=N_ITEMS, seed=seed))
    assert np.mean(rates[False]) == pytest.approx(0.10, abs=0.04)
    assert np.mean(rates[True]) > 0.14


def test_the_probe_sees_a_sampler_that_avoids_the_test_item() -> None:
    assert _leak(N_ITEMS, "test", avoid_the_test_item=True) == 1.0
    assert _leak(150, "test", avoid_the_test_item=True) > 0.2


def test_training_negatives_know_the_training_items_only() -> None:
    splits = _splits(1)
    for split, own in zip(splits, training_negatives(splits, N_ITEMS, N_ITEMS, 1), strict=True):
        assert np.array_equal(np.sort(own), np.setdiff1d(np.arange(N_ITEMS), split.train))
