"""A partner's worker for a task head: the same rounds, ledger and noise keys as for the recommender's adapter."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import TaskHead, head_state, write_head
from fedrec.tasks.task import Task
from fedrec.tasks.training import (
    PlainWork,
    PrivateWork,
    private_integers,
    private_step,
    refuse_private_head,
    train_plain,
)
from fedrec.wire import RoundPlan, UpdateHeader
from fedrec_client.payments import RoundPayments, question_of


@dataclass
class TaskWorker:
    """Answers rounds of a task for one partner; a `RoundWorker`.

    Attributes:
        partner: its name, public.
        head: loaded with the round's adapter each time.
        examples: private.
        plan, ledger, noise_root: as for `Worker`.
        work: how it trains where the round's plan does not say it; its learning rate is the round's.
    """

    partner: str
    head: TaskHead = field(repr=False)
    task: Task
    examples: TaskExamples = field(repr=False)
    plan: PrivacyPlan | None
    ledger: PrivacyLedger | None = field(repr=False)
    noise_root: bytes = field(repr=False)
    work: PlainWork

    def __post_init__(self) -> None:
        """Raises: PrivacyError: a plan for a head that cannot be trained privately; before any row is read."""
        if self.plan is not None:
            refuse_private_head(self.head, self.task)

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """Train on the round's head and release the difference. Raises, Privacy: as `Worker.train`."""
        self._take(plan, state)
        adapter_delta = self._plain(plan, state) if plan.mode == "none" else self._private(plan, state)
        header = UpdateHeader(
            run=plan.run,
            round=plan.round,
            attempt=plan.attempt,
            partner=self.partner,
            delta_hash=adapter_delta.hash,
            plan_hash=plan.privacy_plan_hash,
        )
        return header, adapter_delta

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        """The round's noised sum in integers, for a secure sum. Args, Raises, Privacy: as `Worker.integers`."""
        self._take(plan, state)
        part, _ = self._payments.agreed(plan)
        question = self._question(plan, state, session)
        event, source = self._payments.pay(plan, question), self._payments.source(question, 0)
        vector = private_integers(self.head, self.task, self.examples, self._step(plan, part), source, code)
        self._payments.note_vector(event, vector)
        return vector

    @property
    def _payments(self) -> RoundPayments:
        return RoundPayments(self.partner, self.plan, self.ledger, self.noise_root)

    def _take(self, plan: RoundPlan, state: AdapterState) -> None:
        if state.hash != plan.parent_hash:
            raise ProtocolError(f"round {plan.round}: the adapter is not the parent that the round names")
        if plan.mode != "none":
            self._payments.agreed(plan)  # a plan that is refused anyway makes nobody read a row
        write_head(self.head, state)

    def _plain(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        if self.plan is not None:
            raise PrivacyError("this partner releases nothing without noise", "set mode to inspect or secagg")
        rng = np.random.default_rng([plan.seed, plan.round, *self.partner.encode()])
        work = replace(self.work, learning_rate=plan.learning_rate)
        train_plain(self.head, self.task, self.examples, work, epochs=plan.local_epochs, rng=rng)
        return head_state(self.head).minus(state)

    def _private(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        part, _ = self._payments.agreed(plan)
        question = self._question(plan, state)
        event = self._payments.pay(plan, question)
        for number in range(plan.local_steps):
            source = self._payments.source(question, number)
            private_step(self.head, self.task, self.examples, self._step(plan, part), source)
        adapter_delta = head_state(self.head).minus(state)
        self._payments.note_release(event, adapter_delta.hash)
        return adapter_delta

    def _step(self, plan: RoundPlan, part: PartPlan) -> PrivateWork:
        assert self.plan is not None  # `agreed` has refused otherwise
        return PrivateWork(
            sampling_prob=part.sampling_prob,
            l2_clip_norm=part.l2_clip_norm,
            noise_std=self.plan.noise_std(part.part),
            learning_rate=plan.learning_rate,
            most_rows=self.work.most_rows,
            batch_users=self.work.batch_users,
        )

    def _question(self, plan: RoundPlan, state: AdapterState, session: bytes = b"") -> str:
        bounds = (self.work.most_rows, self.work.batch_users)
        return question_of(plan, state.hash, self.examples.fingerprint, self.partner, bounds, session)
