"""FedMF and PFedRec against one device at a time, and against the leak that their authors' sampler had."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedrec.config import FedMFConfig, PFedRecConfig
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import DataError
from fedrec.evaluation.baselines.devices import Devices
from fedrec.evaluation.baselines.fedmf import FedMF
from fedrec.evaluation.baselines.pfedrec import PFedRec
from fedrec.evaluation.protocol import evaluate_users, leak_hit_rate

N_USERS, N_ITEMS = 40, 24
FEDMF = FedMFConfig(factors=4, learning_rate=2.0, item_learning_rate=4.0, negatives=1, local_steps=3)
PFEDREC = PFedRecConfig(factors=4, learning_rate=0.5, item_learning_rate=40.0, negatives=1, local_steps=2)


def splits_of(n_users: int = N_USERS, n_items: int = N_ITEMS, length: int = 8) -> list[EvaluationSplit]:
    """Users who like one half of the catalogue."""
    rng = np.random.default_rng(3)
    users = []
    for user in range(n_users):
        items = rng.permutation(np.arange(user % 2, n_items, 2))[:length].astype(np.int32)
        users.append(EvaluationSplit(str(user), items[:-2], items[-2:-1], items[-1:]))
    return users


def federations() -> list[FedMF | PFedRec]:
    return [FedMF(splits_of(), N_ITEMS, FEDMF, seed=1), PFedRec(splits_of(), N_ITEMS, PFEDREC, seed=1)]


def test_the_sum_of_the_devices_gradients_is_the_gradient_in_one_place() -> None:
    model = FedMF(splits_of(), N_ITEMS, FEDMF, seed=1)
    samples = model.devices.had + model.devices.draw_negatives(1, np.random.default_rng(2))
    users, items = model.users.clone().requires_grad_(), model.items.clone().requires_grad_()
    squares = samples * (users @ items.T - model.devices.had) ** 2 / 2
    (squares.sum() / N_USERS + FEDMF.l2 / 2 * items.square().sum()).backward()
    assert items.grad is not None
    torch.testing.assert_close(model.summed_item_gradient(samples), items.grad)
    # One device after the other, each with its own samples only.
    alone = torch.zeros_like(items)
    for user in range(N_USERS):
        for item in torch.nonzero(samples[user])[:, 0]:
            alone[item] += (users[user] @ items[item] - model.devices.had[user, item]) * users[user] / N_USERS
    torch.testing.assert_close(model.summed_item_gradient(samples), (alone + FEDMF.l2 * items).detach())
    # A device's own gradient is that of its mean error.
    users.grad = None
    means = samples * (users @ items.detach().T - model.devices.had) ** 2 / 2
    (means.sum(dim=1) / samples.sum(dim=1)).sum().backward()
    assert users.grad is not None
    torch.testing.assert_close(model.user_gradients(samples), users.grad + FEDMF.l2 * users.detach())


def test_a_round_of_pfedrec_equals_devices_with_tables_of_their_own() -> None:
    model = PFedRec(splits_of(n_users=6), N_ITEMS, PFEDREC, seed=1)
    model.train_epoch()
    shared, functions, biases, _ = model.learnt
    samples = model.devices.had + model.devices.draw_negatives(2, np.random.default_rng(5))
    tables, logits = [], []
    for user in range(6):
        table, weight, bias = (x.clone().requires_grad_() for x in (shared, functions[user], biases[user]))
        own = samples[user] > 0

        def loss(table: Any, weight: Any, bias: Any, own: Any = own, user: int = user) -> Any:
            wanted = model.devices.had[user][own]
            return torch.nn.functional.binary_cross_entropy_with_logits(table[own] @ weight + bias, wanted)

        for _ in range(PFEDREC.local_steps):
            by_weight, by_bias = torch.autograd.grad(loss(table, weight, bias), (weight, bias))
            weight, bias = weight - PFEDREC.learning_rate * by_weight, bias - PFEDREC.learning_rate * by_bias
            (by_table,) = torch.autograd.grad(loss(table, weight, bias), table)
            table = table - PFEDREC.item_learning_rate * by_table
        tables.append(table.detach())
        logits.append((table @ weight + bias).detach())
    after = model.round_of(samples)
    torch.testing.assert_close(after.items, torch.stack(tables).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.logits, torch.stack(logits), rtol=1e-4, atol=1e-4)


def test_negatives_are_new_to_the_user_and_tell_nothing_of_the_test() -> None:
    splits = splits_of(n_users=400, n_items=300, length=20)
    devices = Devices.of(splits, 300)
    drawn = devices.draw_negatives(4, np.random.default_rng(1)).numpy()
    assert (drawn.sum(axis=1) == 4 * 18).all()
    assert not (drawn & (devices.had.numpy() > 0)).any()
    lists = [np.flatnonzero(row) for row in drawn]
    assert 0.05 < leak_hit_rate(splits, "test", lists, n_items=300, seed=1) < 0.15
    # The published sampler, which avoids every item of the user, is found out.
    everything = [np.setdiff1d(np.arange(300), [*s.train, *s.validation, *s.test]) for s in splits]
    assert leak_hit_rate(splits, "test", everything, n_items=300, seed=1) == 1.0


@pytest.mark.parametrize("which", [0, 1])
def test_it_learns_tastes_and_repeats_bit_for_bit(which: int) -> None:
    first, second = federations()[which], federations()[which]
    for _ in range(100):
        first.train_epoch()
        second.train_epoch()
    histories = [split.history("test") for split in splits_of()]
    np.testing.assert_array_equal(first.score(histories), second.score(histories))
    found = evaluate_users(first, splits_of(), "test", n_items=N_ITEMS, tie_seed=1).sums().means()
    assert found["hr@5"] > 0.5  # chance: 5 of 17


@pytest.mark.parametrize("which", [0, 1])
def test_a_device_answers_for_its_own_user_only_and_goes_back_to_a_snapshot(which: int) -> None:
    model, splits = federations()[which], splits_of()
    model.train_epoch()
    state, before = model.snapshot(), model.score([splits[3].history("validation")])
    np.testing.assert_array_equal(before, model.score([splits[3].history("test")]))
    for _ in range(3):
        model.train_epoch()
    assert (model.score([splits[3].history("test")]) != before).any()
    model.restore(state)  # type: ignore[arg-type]
    np.testing.assert_array_equal(before, model.score([splits[3].history("test")]))
    with pytest.raises(DataError, match="no device"):
        model.score([np.array([1, 2, 3], np.int32)])
    with pytest.raises(DataError, match="no device"):
        type(model)([], N_ITEMS, SimpleNamespace(**FEDMF.model_dump()), seed=1)  # type: ignore[arg-type]
    assert model.bytes_up_per_round == 4 * 4 * N_ITEMS
