"""SASRec looks back only, learns an order, and repeats itself bit for bit; training stops where validation says."""

import numpy as np
import pytest
import torch

from fedrec.config import SASRecConfig
from fedrec.errors import ConfigError, DataError
from fedrec.evaluation.baselines.sasrec import Dropout, SASRec
from fedrec.evaluation.baselines.stopping import Schedule, train_with_patience
from fedrec.evaluation.protocol import Items, Scores

N_ITEMS = 12
SMALL = SASRecConfig(max_history=6, hidden=16, heads=2, dropout=0.2, learning_rate=1e-2, batch_users=16)


def cycles(n_users: int = 48) -> list[np.ndarray]:
    """Users who go round the catalogue, each from a place of their own."""
    rng = np.random.default_rng(1)
    return [
        ((np.arange(rng.integers(2, 10)) + rng.integers(N_ITEMS)) % N_ITEMS).astype(np.int32) for _ in range(n_users)
    ]


def trained(epochs: int, settings: SASRecConfig = SMALL, seed: int = 1) -> SASRec:
    model = SASRec(cycles(), N_ITEMS, settings, seed)
    for _ in range(epochs):
        model.train_epoch()
    return model


@pytest.fixture(scope="module", name="model")
def trained_model() -> SASRec:
    return trained(15)


def test_it_learns_a_cycle(model: SASRec) -> None:
    found = model.score(cycles()).argmax(axis=1)
    assert (found == [(history[-1] + 1) % N_ITEMS for history in cycles()]).mean() > 0.95


def test_a_later_item_changes_no_earlier_score(model: SASRec) -> None:
    items = torch.tensor([[0, 1, 2, 3, 4, 5]])
    model.network.eval()
    with torch.no_grad():
        before = model.network.scores(model.network(items))
        for place in range(6):
            changed = items.clone()
            changed[0, place] = 9
            after = model.network.scores(model.network(changed))
            same = (before == after).all(dim=2)[0].tolist()
            assert same == [position < place for position in range(6)]


def test_padding_and_company_change_no_score(model: SASRec) -> None:
    histories = [*cycles(), np.zeros(0, np.int32)]
    singles = np.concatenate([model.score([history]) for history in histories])
    np.testing.assert_allclose(model.score(histories), singles, rtol=1e-4, atol=1e-5)
    assert np.isfinite(singles).all()
    assert model.score([]).shape == (0, N_ITEMS)


def test_only_the_latest_items_are_read(model: SASRec) -> None:
    long = np.array([7, 3, 0, 1, 2, 3, 4, 5], np.int32)
    np.testing.assert_array_equal(model.score([long]), model.score([long[-6:]]))
    assert (model.score([long]) != model.score([long[-5:]])).any()


def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = trained(2).score(cycles())
    assert (torch.get_rng_state() == state).all()
    torch.manual_seed(6)
    np.testing.assert_array_equal(first, trained(2).score(cycles()))
    assert (first != trained(2, seed=2).score(cycles())).any()


def test_dropout_keeps_the_mean_and_is_off_in_evaluation() -> None:
    layer = Dropout(0.25, np.random.default_rng(1))
    ones = torch.ones(200, 500)
    dropped = layer(ones)
    assert abs(float(dropped.mean()) - 1) < 0.01
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    assert layer.eval()(ones) is ones


def test_codes_and_settings_that_do_not_fit_are_refused(model: SASRec) -> None:
    for bad in (-1, N_ITEMS):
        with pytest.raises(DataError, match="outside the catalogue"):
            model.score([np.array([bad], np.int32)])
        with pytest.raises(DataError, match="outside the catalogue"):
            SASRec([np.array([0, bad], np.int32)], N_ITEMS, SMALL, 1)
    with pytest.raises(ValueError, match="no multiple of heads"):
        SASRecConfig(hidden=10, heads=3)
    with pytest.raises(ConfigError) as refused:
        Schedule(0, 1, -1)
    assert "epochs=0" in str(refused.value)
    assert "patience=-1" in str(refused.value)


class Counter:
    """Learns to count, and scores nobody."""

    def __init__(self) -> None:
        self.epoch = 0

    def train_epoch(self) -> None:
        self.epoch += 1

    def snapshot(self) -> int:
        return self.epoch

    def restore(self, state: int) -> None:
        self.epoch = state

    def score(self, histories: list[Items]) -> Scores:
        raise AssertionError("the judge asks")


@pytest.mark.parametrize(
    ("schedule", "best", "looks"),
    [
        (Schedule(100, 2, 2), 6, [2, 4, 6, 8, 10]),  # two looks without a gain
        (Schedule(5, 2, 9), 5, [2, 4, 5]),  # the last epoch is looked at as well
        (Schedule(30, 3, 1), 6, [3, 6, 9]),
    ],
)
def test_training_ends_after_patience_and_the_best_epoch_stays(schedule: Schedule, best: int, looks: list[int]) -> None:
    model, told = Counter(), []
    curve = train_with_patience(
        model, lambda: -abs(model.epoch - 6.4), schedule, lambda done, total: told.append((done, total))
    )
    assert (curve.epoch, model.epoch, [epoch for epoch, _ in curve.validation]) == (best, best, looks)
    assert curve.reached == -abs(best - 6.4)
    assert told[-1] == (curve.epochs, schedule.epochs) == (looks[-1], schedule.epochs)


def test_of_equal_epochs_the_first_stays() -> None:
    model = Counter()
    assert train_with_patience(model, lambda: 0.5, Schedule(9, 1, 3)).epoch == 1
