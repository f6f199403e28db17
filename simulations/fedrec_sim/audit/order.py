"""Is the cost on the disk before a row is read, and the release noted before it is sent? A real worker, watched."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np
import torch
from transformers import LlamaConfig, LlamaModel

from fedrec.model.backbone import Backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, read_state
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.worker import PartnerData, Worker

_ITEMS, _WIDTH = 24, 16


@dataclass
class WatchedRows(Sequence[np.ndarray]):
    """Histories that ask, at every touch, whether the ledger file already holds a reserve."""

    rows: Sequence[np.ndarray] = field(repr=False)
    is_paid: Callable[[], bool]
    touches: int = 0
    unpaid: int = 0

    def _touch(self) -> None:
        self.touches += 1
        self.unpaid += not self.is_paid()

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> Any:
        self._touch()
        return self.rows[index]

    def __len__(self) -> int:
        self._touch()
        return len(self.rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        self._touch()
        return iter(self.rows)


class LateLedger:
    """A mutant: takes a reserve when it is asked to, and writes it down when the answer is ready."""

    def __init__(self, ledger: PrivacyLedger) -> None:
        self._ledger, self._waiting = ledger, dict[str, dict[str, Any]]()

    def reserve(self, event_id: str, **cost: Any) -> None:
        self._waiting[event_id] = cost

    def release(self, event_id: str, delta_hash: str) -> None:
        self._ledger.reserve(event_id, **self._waiting.pop(event_id))
        self._ledger.release(event_id, delta_hash)


@dataclass(frozen=True)
class OrderReport:
    """What was seen.

    Attributes:
        touches: how often the rows were touched; `unpaid` of them before a reserve was on the disk.
        noted: whether the hash of every answer stood in the ledger when it was handed over.
    """

    touches: int
    unpaid: int
    noted: bool

    @property
    def passed(self) -> bool:
        """Something was read, all of it paid, all of it noted."""
        return self.touches > 0 and self.unpaid == 0 and self.noted


def watch_order(wrap: Callable[[PrivacyLedger], Any] = lambda ledger: ledger) -> OrderReport:
    """A real worker answers a round of each part on made rows, its ledger and its rows watched.

    Args:
        wrap: puts a mutant before the ledger.
    """
    touches, unpaid, noted = 0, 0, True
    with TemporaryDirectory() as folder:
        for part in ("prior", "head", "lora"):
            ledger = _ledger(Path(folder) / f"{part}.sqlite")
            worker, rows = _worker(part, ledger, wrap(ledger))
            state = read_state(worker.model)
            header, _ = worker.train(_round(part, worker, state.hash), state)
            touches, unpaid = touches + rows.touches, unpaid + rows.unpaid
            noted = noted and any(header.delta_hash in record.content for record in ledger.chain().records)
    return OrderReport(touches, unpaid, noted)


def _ledger(path: Path) -> PrivacyLedger:
    return PrivacyLedger.create(path, partner="audit", dataset="made", budget_epsilon=100.0, budget_delta=1e-5)


def _worker(part: str, ledger: PrivacyLedger, wrapped: Any) -> tuple[Worker, WatchedRows]:
    """A worker as a node has it, but for a tiny random Llama and made rows."""
    rng = np.random.default_rng(0)
    data = PartnerData.of([rng.integers(0, _ITEMS, 6).astype(np.int32) for _ in range(8)])
    rows = WatchedRows(data.histories, lambda: ledger.spent()[0] > 0)
    watched = replace(data, histories=rows)  # type: ignore[arg-type]  # a sequence like the tuple
    plan = PrivacyPlan("user", "inspect", 1e-5, (PartPlan(part, 0.9, 1.0, 4.0, 1),), 1)
    return Worker("audit", _model(), watched, plan, wrapped, bytes(32), PlainSettings(1e-3, 0.0, 8, 50)), rows


def _model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": _WIDTH, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    module = LlamaModel(LlamaConfig(vocab_size=4, **sizes)).eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    features = ItemFeatures.of_text(_random(rng, 8), _random(rng, _WIDTH), "made")
    shape = AdapterShape(rank=2, item_dim=0, summary_dim=4, context_dim=4, score_dim=4)
    return build_model(Backbone(module, _WIDTH, 1, "made", hashlib.sha256(b"made").hexdigest()), features, shape, 0)


def _random(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.normal(size=(_ITEMS, width)).astype(np.float32)


def _round(part: str, worker: Worker, parent_hash: str) -> RoundPlan:
    assert worker.plan is not None
    return RoundPlan(
        run="audit",
        round=1,
        attempt=1,
        part=part,
        local_epochs=1,
        local_steps=1,
        learning_rate=1.0,
        parent_hash=parent_hash,
        privacy_plan_hash=worker.plan.hash,
        mode="inspect",
        quorum=1,
        deadline_s=60.0,
        seed=0,
    )
