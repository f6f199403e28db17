"""Partners of one model who are asked one after the other in this process, without ServerApp or registry.

Workers, ledgers, aggregation and the coordinator's step are the real ones; for benches that train many small variants.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peft import PeftModel

from fedrec.aggregation.mean import PartnerUpdate, UniformMean
from fedrec.aggregation.server_optimizer import OptimizerState
from fedrec.model.adapter import AdapterState
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.training.local import PlainSettings
from fedrec.wire import RoundPlan
from fedrec_client.worker import PartnerData, Worker
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.seeds import seeded_root


@dataclass(frozen=True)
class Team:
    """Partners with one plan.

    Attributes:
        label: enters every noise key, so that two trainings never meet the same noise.
        shares: histories of each partner's users; private.
        epsilon: budget of each ledger.
    """

    label: str
    model: PeftModel = field(repr=False)
    shares: Sequence[Sequence[np.ndarray]] = field(repr=False)
    settings: PlainSettings
    seed: int
    plan: PrivacyPlan | None = None
    epsilon: float = 0.0

    def train(self, state: AdapterState, schedule: Sequence[RoundSpec]) -> AdapterState:
        """The adapter after every round of the schedule; every partner answers in each."""
        with tempfile.TemporaryDirectory() as folder:
            workers = [self._worker(number, Path(folder)) for number in range(len(self.shares))]
            moments = dict[str, OptimizerState]()
            for number, spec in enumerate(schedule, start=1):
                asked = self._asked(number, spec, state)
                updates = [PartnerUpdate(worker.partner, worker.train(asked, state)[1]) for worker in workers]
                mean = UniformMean().aggregate(updates)
                moved, moments[spec.part] = spec.optimizer.step(mean, moments.get(spec.part, {}))
                state = state.plus(moved)
        return state

    def _worker(self, number: int, ledgers: Path) -> Worker:
        name, ledger = f"partner-{number + 1}", None
        if self.plan is not None:
            budget = {"budget_epsilon": self.epsilon, "budget_delta": self.plan.delta}
            path = ledgers / f"{name}.sqlite"
            ledger = PrivacyLedger.create(path, partner=name, dataset=self.label, **budget)
        return Worker(
            partner=name,
            model=self.model,
            data=PartnerData.of(self.shares[number]),
            plan=self.plan,
            ledger=ledger,
            noise_root=hashlib.sha256(seeded_root(self.seed) + f"{self.label}|{name}".encode()).digest(),
            plain=self.settings,
            most_users=max(map(len, self.shares)),
            is_vetted=number > 0,
        )

    def _asked(self, number: int, spec: RoundSpec, state: AdapterState) -> RoundPlan:
        return RoundPlan(
            run=self.label,
            round=number,
            attempt=1,
            part=spec.part,
            local_epochs=spec.local_epochs,
            local_steps=spec.local_steps,
            learning_rate=spec.learning_rate,
            parent_hash=state.hash,
            privacy_plan_hash=self.plan.hash if self.plan else "none",
            mode=self.plan.mode if self.plan else "none",
            quorum=self.plan.quorum + self.plan.dishonest if self.plan else 1,
            deadline_s=600.0,
            seed=self.seed,
        )
