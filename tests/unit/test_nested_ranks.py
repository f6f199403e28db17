"""Partners of different rank: a low rank trains as a small model does, and each direction is averaged over its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from fedrec.aggregation.mean import PartnerUpdate
from fedrec.aggregation.nested import NestedMean
from fedrec.config import load_config
from fedrec.errors import ConfigError, PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, read_state
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.sections.training import MethodName
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.worker import PartnerData, Worker

DEMO = Path(__file__).resolve().parents[2] / "simulations/configs/demo.toml"
SHAPE = AdapterShape(rank=3, item_dim=3, summary_dim=4, context_dim=6, score_dim=5, head_start=1.0)
A, B = "x.lora_A.weight", "x.lora_B.weight"


def made(folder: Path, features: ItemFeatures, rank: int, method: MethodName) -> PeftModel:
    shape = replace(SHAPE, rank=rank, method=method)
    return build_model(load_backbone(folder, 2, torch.device("cpu"), torch.float32), features, shape, seed=3)


def cut(name: str, tensor: np.ndarray, rank: int) -> np.ndarray:
    return tensor[:rank] if ".lora_A." in name else tensor[:, :rank] if ".lora_B." in name else tensor


def round_of(state: AdapterState, part: str, mode: str = "none", plan_hash: str = "none") -> RoundPlan:
    return RoundPlan("run", 1, 1, part, 2, 1, 0.01, state.hash, plan_hash, mode, 1, 60.0, 7)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lora", "ffa-lora"])
def test_a_partner_of_low_rank_trains_exactly_as_a_model_of_that_rank(
    method: MethodName, tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]
) -> None:
    whole, small = (made(tiny_llama, features, rank, method) for rank in (3, 2))
    rng = np.random.default_rng(0)
    start = AdapterState(
        {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in read_state(whole).tensors.items()}
    )
    few = AdapterState({name: np.ascontiguousarray(cut(name, v, 2)) for name, v in start.tensors.items()})
    data, settings = PartnerData.of(histories[:20]), PlainSettings(0.01, 0.1, 8, 50)
    _, found = Worker("shop", whole, data, None, None, bytes(32), settings, rank=2).train(round_of(start, "all"), start)
    _, expected = Worker("shop", small, data, None, None, bytes(32), settings).train(round_of(few, "all"), few)
    assert found.within_rank(2).hash == found.hash
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(cut(name, found.tensors[name], 2), tensor, atol=2e-4)


def test_noise_is_where_a_partner_trains_and_nowhere_else(
    tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray], tmp_path: Path
) -> None:
    model = made(tiny_llama, features, 3, "lora")
    state = read_state(model)
    plan = PrivacyPlan("user", "inspect", 1e-5, (PartPlan("lora", 1.0, 0.1, 4.0, 1),), 1)
    ledger = PrivacyLedger.create(
        tmp_path / "ledger.sqlite", partner="shop", dataset="d", budget_epsilon=9.0, budget_delta=1e-5
    )
    data, settings = PartnerData.of(histories[:20]), PlainSettings(0.01, 0.1, 8, 50)
    worker = Worker("shop", model, data, plan, ledger, bytes(32), settings, rank=1)
    _, found = worker.train(round_of(state, "lora", "inspect", plan.hash), state)
    assert found.within_rank(1).hash == found.hash
    trained = np.concatenate([cut(name, tensor, 1).ravel() for name, tensor in found.tensors.items()])
    assert abs(float(trained.std()) / (0.01 * 0.1 * 4.0) - 1) < 0.2
    code = IntegerCode.of(replace(plan, mode="secagg"), "lora", 3, 64)
    with pytest.raises(PrivacyError, match="one rank"):
        worker.integers(round_of(state, "lora", "inspect", plan.hash), state, code, b"")


def test_each_direction_is_the_mean_over_those_who_train_it() -> None:
    """Against one number at a time."""
    ranks, rng = {"a": 1, "b": 3, "c": 2, "d": 2}, np.random.default_rng(0)
    shapes = {A: (4, 5), B: (6, 4), "head": (2, 2)}
    updates = [
        PartnerUpdate(
            p, AdapterDelta({n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}).within_rank(r)
        )
        for p, r in ranks.items()
    ]
    mean = NestedMean(ranks).aggregate(updates)
    for name, shape in shapes.items():
        for place in np.ndindex(shape):
            direction = {A: place[0], B: place[1]}.get(name, 0)
            mine = [u.adapter_delta.tensors[name][place] for u in updates if ranks[u.partner] > direction]
            assert mean.tensors[name][place] == pytest.approx(np.mean(mine) if mine else 0.0, rel=1e-6, abs=1e-7)


def test_what_a_partner_may_not_send() -> None:
    mean = NestedMean({"a": 1})
    beyond = AdapterDelta({A: np.ones((2, 2), np.float32)})
    with pytest.raises(ProtocolError, match="beyond its rank of 1"):
        mean.aggregate([PartnerUpdate("a", beyond)])
    with pytest.raises(ProtocolError, match="has no rank"):
        mean.aggregate([PartnerUpdate("b", beyond.within_rank(1))])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("plain.ranks=[2, 4]",), "largest of ranks must be shape.rank, 8"),
        (("plain.ranks=[8]", 'plain.shape.method="prompt"'), "not for shape.method prompt"),
        (("private.ranks=[1, 2]",), "under masks a direction that few"),
        (
            ("plain.ranks=[8]", 'rows=["federated"]', 'rounds.aggregator="median"', "rounds.hostile=1"),
            "aggregator mean",
        ),
        (('private.shape.method="dora"',), "no per-user gradient is captured"),
        (('private.shape.method="adalora"',), "not noised"),
    ],
)
def test_ranks_and_methods_that_do_not_fit_are_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(DEMO, overrides)
