"""A partner's worker for a task head: the same rounds, ledger and noise keys as for the recommender's adapter."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.privacy.gradients import UserDPOptimizer
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import TaskHead, head_state, write_head
from fedrec.tasks.item_part import ITEMS, TENSOR, ItemPart, bounded_surprises, plain_surprises
from fedrec.tasks.own_rows import TasteRows
from fedrec.tasks.pseudo_labels import pseudo_labelled
from fedrec.tasks.terms import TaskTerms
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
        terms: that the partner agreed to.
        rows: private: examples as they are, or rows that become examples once something is known about items.
        plan, ledger, noise_root: as for `Worker`.
        work: how it trains where the round's plan does not say it; its learning rate is the round's.
        renew: as for `Worker`; of rows that become examples.
    """

    partner: str
    head: TaskHead = field(repr=False)
    terms: TaskTerms
    rows: TaskExamples | TasteRows = field(repr=False)
    plan: PrivacyPlan | None
    ledger: PrivacyLedger | None = field(repr=False)
    noise_root: bytes = field(repr=False)
    work: PlainWork
    renew: Callable[[RoundPlan], TasteRows] | None = field(default=None, repr=False)
    _renewed_for: tuple[str, int] = ("", -1)
    _made: dict[str, TaskExamples] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises: PrivacyError: a plan for a head that cannot be trained privately; before any row is read."""
        if self.plan is not None:
            refuse_private_head(self.head, self.terms.task)

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
        work = self._step(plan, part)
        if plan.part == ITEMS:
            vector = self._surprises(state, work, source)[1].noised_integers(code)
        else:
            vector = private_integers(self.head, self.terms.task, self._examples(state), work, source, code)
        self._payments.note_vector(event, vector)
        return vector

    @property
    def _payments(self) -> RoundPayments:
        return RoundPayments(self.partner, self.plan, self.ledger, self.noise_root)

    def _take(self, plan: RoundPlan, state: AdapterState) -> None:
        if state.hash != plan.parent_hash:
            raise ProtocolError(f"round {plan.round}: the adapter is not the parent that the round names")
        if plan.mode != "none":
            self._payments.agreed(plan)  # a plan that is refused anyway makes nobody read a row, nor pay
        if plan.part == ITEMS:
            self._taste_rows()
            if plan.local_steps != 1:
                raise PrivacyError("items are asked about in one step", "set local_steps to 1")
        self._renew(plan)
        write_head(self.head, state)

    def _renew(self, plan: RoundPlan) -> None:
        """Once for a round and not for its further attempts, as for `Worker`; examples are of the rows before."""
        if self.renew is None or self._renewed_for == (plan.run, plan.round):
            return
        rows = self.renew(plan)
        if rows.fingerprint != self.rows.fingerprint:
            self.rows, self._made = rows, {}
        self._renewed_for = (plan.run, plan.round)

    def _plain(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        if self.plan is not None:
            raise PrivacyError("this partner releases nothing without noise", "set mode to inspect or secagg")
        if plan.part == ITEMS:
            rows, items = self._taste_rows()
            return AdapterDelta({TENSOR: np.float32(plan.learning_rate) * plain_surprises(rows, items)})
        rng = np.random.default_rng([plan.seed, plan.round, *self.partner.encode()])
        work = replace(self.work, learning_rate=plan.learning_rate)
        train_plain(self.head, self.terms.task, self._examples(state), work, epochs=plan.local_epochs, rng=rng)
        return self._moved(state)

    def _private(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        part, _ = self._payments.agreed(plan)
        question = self._question(plan, state)
        event = self._payments.pay(plan, question)
        adapter_delta = self._noised(plan, part, state, question)
        self._payments.note_release(event, adapter_delta.hash)
        return adapter_delta

    def _noised(self, plan: RoundPlan, part: PartPlan, state: AdapterState, question: str) -> AdapterDelta:
        work = self._step(plan, part)
        if plan.part == ITEMS:
            parameter, optimizer = self._surprises(state, work, self._payments.source(question, 0))
            optimizer.step()
            return AdapterDelta({TENSOR: parameter.detach().numpy() - state.tensors[TENSOR]})
        examples = self._examples(state)
        for number in range(plan.local_steps):
            source = self._payments.source(question, number)
            private_step(self.head, self.terms.task, examples, work, source)
        return self._moved(state)

    def _surprises(
        self, state: AdapterState, work: PrivateWork, source: NoiseSource
    ) -> tuple[nn.Parameter, UserDPOptimizer]:
        rows, items = self._taste_rows()
        parameter = nn.Parameter(torch.from_numpy(state.tensors[TENSOR].copy()))
        return parameter, bounded_surprises(parameter, rows, items, work, source)

    def _taste_rows(self) -> tuple[TasteRows, ItemPart]:
        if self.terms.items is None or not isinstance(self.rows, TasteRows):
            raise PrivacyError("this partner was not asked to agree to a part about items")
        return self.rows, self.terms.items

    def _examples(self, state: AdapterState) -> TaskExamples:
        """Rows with an answer, and those that the round's head answers; the head must hold the round's adapter."""
        examples = self._answered(state)
        if self.terms.pseudo is None:
            return examples
        return pseudo_labelled(examples, self.head, self.terms.task, self.terms.pseudo)

    def _answered(self, state: AdapterState) -> TaskExamples:
        """Inputs hold as long as what is known about items stands still."""
        if not isinstance(self.rows, TasteRows):
            return self.rows
        key = hashlib.sha256(state.tensors[TENSOR].tobytes()).hexdigest() if TENSOR in state.tensors else ""
        if key not in self._made:
            taste = self.terms.corrected(self.rows.taste, state)
            self._made = {key: self.rows.examples(taste)}
        return self._made[key]

    def _moved(self, state: AdapterState) -> AdapterDelta:
        ends = head_state(self.head).tensors
        return AdapterDelta({name: end - state.tensors[name] for name, end in ends.items()})

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
        rows = self.rows.fingerprint
        if self.terms.pseudo is not None:  # labels made otherwise are other data, and must not meet the same noise
            rows = hashlib.sha256(f"{rows}|{self.terms.pseudo!r}".encode()).hexdigest()
        return question_of(plan, state.hash, rows, self.partner, bounds, session)
