"""The path of one row, stop by stop, with the headings of docs/tour.md."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedrec.aggregation.mean import PartnerUpdate, UniformMean, check_reply
from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import ColumnMapping, read_interactions
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import leave_one_out
from fedrec.errors import BudgetError, PrivacyError
from fedrec.model.adapter import AdapterSpec
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.methods import part_of
from fedrec.model.recommender import AdapterShape, adapter_parameters, build_model, read_state, write_state
from fedrec.privacy.accounting import checked_epsilon
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import calibrate
from fedrec.recommend.explain import leave_one_out as explain
from fedrec.recommend.recommender import ModelRecommender
from fedrec.registry.registry import Registry
from fedrec.training.local import PlainSettings
from fedrec.wire import Mode, RoundPlan
from fedrec_client.worker import PartnerData, Worker
from fedrec_sim.seeds import seeded_root

MakeLedger = Callable[..., PrivacyLedger]
SHAPE = AdapterShape(rank=2, item_dim=0, summary_dim=4, context_dim=4, score_dim=4)


def test_the_path_of_one_row(
    catalog: ItemCatalog, tiny_llama: Path, features: ItemFeatures, tmp_path: Path, make_ledger: MakeLedger
) -> None:
    # 1. A row is read
    lines = [f"anna,i{item},{1000 + item}" for item in (4, 8, 12, 16)] + [f"bert,i{item},{5}" for item in (1, 5, 9)]
    (tmp_path / "rows.csv").write_text("user,item,timestamp\n" + "\n".join(lines), encoding="utf-8")
    table = read_interactions(tmp_path / "rows.csv", ColumnMapping("user", "item", None, "timestamp"), catalog)
    assert "anna" not in repr(table)

    # 2. Rows become a history
    splits = leave_one_out(build_sequences(table, seed=1))
    anna = next(split for split in splits if split.user == "anna")
    assert anna.train.tolist() == [4, 8]

    # 3. The cost is written down, then users are drawn
    plan = calibrate([("head", 2, 1.0, 0.3, 1.0)], epsilon=8.0, delta=1e-4, mode="secagg", quorum=1)
    ledger = make_ledger(tmp_path / "ledger.sqlite", 8.0, 1e-4)
    model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=1)
    start = read_state(model)
    data = PartnerData.of([split.train for split in splits])
    worker = Worker("shop", model, data, plan, ledger, seeded_root(1), PlainSettings(1e-3, 0.0, 8, 50))
    question = round_plan(1, start.hash, plan.hash)

    # 4. The catalogue is scored; 5. Each user's say is bounded; 6. Noise, and it may leave
    header, adapter_delta = worker.train(question, start)
    assert ledger.spent()[0] == pytest.approx(checked_epsilon(plan.events({"head": 1}), 1e-4))
    assert {part_of(name) for name in adapter_delta.tensors} == {"head"}
    again, same = worker.train(question, start)
    assert (again.delta_hash, same.hash) == (header.delta_hash, adapter_delta.hash)
    assert ledger.spent()[0] == pytest.approx(checked_epsilon(plan.events({"head": 1}), 1e-4))

    # 7. It travels; 8. Answers become the next adapter
    shapes = {n: tuple(p.shape) for n, p in adapter_parameters(model).items() if part_of(n) == "head"}
    spec = AdapterSpec("tiny", "h", catalog.hash, features.hash, {"head": shapes})
    check_reply(header, adapter_delta, sender="shop", plan=question, spec=spec, max_norm=1e6, cohort=["shop"])
    mean = UniformMean().aggregate([PartnerUpdate("shop", adapter_delta)])
    after = start.plus(ServerOptimizer("adam", 0.1).step(mean, {})[0])

    # 9. The round is committed
    registry = Registry(tmp_path / "registry")
    registry.commit(start, round=0, parent="", mode="secagg", statement={}, server_state={})
    registry.commit(after, round=1, parent=start.hash, mode="secagg", statement={}, server_state={})
    assert registry.verify() == 2

    # 10. Somebody gets a list
    write_state(model, registry.load_head())
    recommender = ModelRecommender(model, 50)
    ranked = recommender.rank(anna.history("test"), 5)
    assert not set(ranked.items) & set(anna.history("test"))
    assert len(explain(recommender, anna.history("test"), ranked)) == 5

    # and the plan and the budget hold: the second step is paid; a third, or another training, is refused
    worker.train(round_plan(2, after.hash, plan.hash), after)
    with pytest.raises(PrivacyError, match="the plan has 2 steps"):
        worker.train(round_plan(3, after.hash, plan.hash), after)
    with pytest.raises(BudgetError, match="remain"):
        worker.train(replace(round_plan(1, after.hash, plan.hash), run="another"), after)


def test_a_partner_refuses_what_it_did_not_agree_to(
    tiny_llama: Path, features: ItemFeatures, tmp_path: Path, make_ledger: MakeLedger
) -> None:
    plan = calibrate([("head", 2, 1.0, 0.3, 1.0)], epsilon=8.0, delta=1e-4, mode="secagg", quorum=1)
    ledger = make_ledger(tmp_path / "ledger.sqlite", 8.0, 1e-4)
    model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=1)
    start = read_state(model)
    data = PartnerData.of([np.array([1, 2, 3], np.int32)])
    worker = Worker("shop", model, data, plan, ledger, seeded_root(1), PlainSettings(1e-3, 0.0, 8, 50))
    refused = [
        round_plan(1, start.hash, "another plan"),
        round_plan(1, start.hash, plan.hash, part="lora"),
        round_plan(1, start.hash, plan.hash, local_steps=2),
        round_plan(1, start.hash, "none", mode="none"),
        round_plan(1, start.hash, plan.hash, mode="inspect"),
        round_plan(1, start.hash, plan.hash, quorum=2),
    ]
    for question in refused:
        with pytest.raises(PrivacyError):
            worker.train(question, start)
    assert ledger.spent()[0] == 0


def test_nobody_without_the_key_can_tell_from_a_ledgers_names_which_data_were_asked(
    tiny_llama: Path, features: ItemFeatures, tmp_path: Path, make_ledger: MakeLedger
) -> None:
    plan = calibrate([("head", 2, 1.0, 0.3, 1.0)], epsilon=8.0, delta=1e-4, mode="secagg", quorum=1)
    data = PartnerData.of([np.array([1, 2, 3], np.int32)])
    names = []
    for key in (b"a" * 32, b"b" * 32):
        ledger = make_ledger(tmp_path / f"{key[:1].decode()}.sqlite", 8.0, 1e-4)
        model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, seed=1)
        start = read_state(model)
        worker = Worker("shop", model, data, plan, ledger, key, PlainSettings(1e-3, 0.0, 8, 50))
        worker.train(round_plan(1, start.hash, plan.hash), start)
        with closing(sqlite3.connect(ledger.path)) as db:
            names += db.execute("SELECT event_id FROM records WHERE kind = 'reserve'").fetchall()
    assert len(set(names)) == 2


def round_plan(
    number: int,
    parent: str,
    plan_hash: str,
    *,
    part: str = "head",
    local_steps: int = 1,
    mode: Mode = "secagg",
    quorum: int = 1,
) -> RoundPlan:
    """A round as the coordinator would ask."""
    return RoundPlan(
        run="demo",
        round=number,
        attempt=1,
        part=part,
        local_epochs=1,
        local_steps=local_steps,
        learning_rate=1.0,
        parent_hash=parent,
        privacy_plan_hash=plan_hash,
        mode=mode,
        quorum=quorum,
        deadline_s=60.0,
        seed=1,
    )
