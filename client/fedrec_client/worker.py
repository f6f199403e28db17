"""The partner's worker: owns rows, model, ledger and keys, and decides what leaves. Warm: it loads the model once."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.model.methods import members_of
from fedrec.model.recommender import adapter_parameters, part_names, reading_hash, write_state
from fedrec.privacy.integer_code import IntegerCode
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.training.local import (
    ContextCache,
    PlainSettings,
    PrivateStep,
    private_integers,
    private_step,
    refuse_private_training,
    train_plain,
)
from fedrec.wire import RoundPlan, UpdateHeader
from fedrec_client.payments import RoundPayments, question_of


@dataclass(frozen=True)
class PartnerData:
    """A partner's training histories. Private: never in a repr, a log or a message.

    Attributes:
        histories: int32 item codes per user, oldest first.
        fingerprint: SHA-256 over all of it; enters the noise key, so that changed data never meet the same noise.
    """

    histories: tuple[np.ndarray, ...] = field(repr=False)
    fingerprint: str = field(repr=False)

    @classmethod
    def of(cls, histories: Sequence[np.ndarray]) -> "PartnerData":
        """Bind histories to their fingerprint."""
        digest = hashlib.sha256()
        for history in histories:
            codes = np.ascontiguousarray(history, dtype=np.int32)
            digest.update(len(codes).to_bytes(8, "big") + codes.tobytes())
        return cls(tuple(histories), digest.hexdigest())


@dataclass
class Worker:
    """Answers rounds for one partner.

    Attributes:
        partner: its name, public.
        model: warm; loaded with the round's adapter each time.
        data: private.
        plan: the private plan that this partner agreed to, or None where no privacy is claimed (simulations only).
        ledger: this partner's own; None only with `plan` None.
        noise_root: 32 secret bytes; keys every draw.
        plain: settings of training without privacy.
        most_users: as in `PrivateStep`; public.
        rank: of this partner's LoRA, public: it trains the leading directions of the federation's, with the others
            taken out of its model, so that its difference is zero there; 0: all of them.
        is_vetted: a worker with this very model and plan was made before (simulations share one), so that the model
            need not be looked at again.
        renew: reads the partner's data as they are now for a round, once and not for its further attempts: who was
            deleted is in no later round, and what changes between two attempts is no reason to pay twice.
    """

    partner: str
    model: PeftModel = field(repr=False)
    data: PartnerData
    plan: PrivacyPlan | None
    ledger: PrivacyLedger | None = field(repr=False)
    noise_root: bytes = field(repr=False)
    plain: PlainSettings
    most_users: int = 0
    rank: int = 0
    is_vetted: bool = False
    renew: Callable[[RoundPlan], PartnerData] | None = field(default=None, repr=False)
    _renewed_for: tuple[str, int] = ("", -1)
    _cache: ContextCache = field(default_factory=ContextCache, repr=False)

    def __post_init__(self) -> None:
        """Raises: PrivacyError: a plan for a model that cannot be trained privately; before any row is read."""
        if self.plan is not None and not self.is_vetted:
            refuse_private_training(self.model, [part.part for part in self.plan.parts])

    def train(self, plan: RoundPlan, state: AdapterState) -> tuple[UpdateHeader, AdapterDelta]:
        """Train on the round's adapter and release the difference.

        Raises:
            ProtocolError: the adapter is not the one the round names.
            PrivacyError, BudgetError: the round is not what this partner agreed to, or its budget is spent.
        Privacy: reserves the round's cost on disk before anything is computed from rows for it. (Their fingerprint
            is taken when they are read, at the start and, with `renew`, before each round's reserve; it keys the noise
            and never leaves.)
        """
        self._take(plan, state)
        answer = self._plain_delta if plan.mode == "none" else self._private_delta
        adapter_delta = answer(plan, state)
        header = UpdateHeader(
            run=plan.run,
            round=plan.round,
            attempt=plan.attempt,
            partner=self.partner,
            delta_hash=adapter_delta.hash,
            plan_hash=plan.privacy_plan_hash,
        )
        return header, adapter_delta

    def _plain_delta(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        if self.plan is not None:
            raise PrivacyError("this partner releases nothing without noise", "set mode to inspect or secagg")
        names = part_names(self.model, members_of(plan.part))
        if plan.part == "prior":
            histogram = mean_counts(self.data.histories, len(state.tensors[names[0]]))
            return AdapterDelta({names[0]: histogram - state.tensors[names[0]]})
        rng = np.random.default_rng([plan.seed, plan.round, *self.partner.encode()])
        settings = PlainSettings(
            plan.learning_rate, self.plain.weight_decay, self.plain.batch_users, self.plain.max_history
        )
        epochs, cache = plan.local_epochs, self._cache
        train_plain(self.model, names, self.data.histories, settings, epochs=epochs, rng=rng, cache=cache)
        return self._difference(state, names)

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        """The round's noised sum in integers, for a secure sum and nobody else.

        Args:
            session: see `IntegerSource`.
        Returns: int64 `[numbers of the part]`, tensors in name order, in grains of the code.
        Raises, Privacy: as `train`. With this partner's share of the noise alone.
        """
        if self.rank:
            raise PrivacyError("sums under masks need partners of one rank", "set no rank, or inspect mode")
        self._take(plan, state)
        part, _ = self.agreed(plan)
        names = part_names(self.model, [part.part])
        question = self._question(plan, state, session)
        event, source = self._payments.pay(plan, question), self._payments.source(question, 0)
        vector = private_integers(
            self.model, names, self.data.histories, self._step(plan, part), source, self._cache, code
        )
        self._payments.note_vector(event, vector)
        return vector

    def _take(self, plan: RoundPlan, state: AdapterState) -> None:
        if state.hash != plan.parent_hash:
            raise ProtocolError(f"round {plan.round}: the adapter is not the parent that the round names")
        if not state.is_finite:
            raise ProtocolError(f"round {plan.round}: the adapter is not finite")
        if plan.mode != "none":
            self.agreed(plan)  # a plan that is refused anyway makes nobody read a row
        self._renew(plan)
        write_state(self.model, state.within_rank(self.rank) if self.rank else state)
        if plan.part == "head":  # which alone reads them
            self._forget_stale_contexts(state)

    def _renew(self, plan: RoundPlan) -> None:
        """Contexts are kept by a user's place among all, which other data change."""
        if self.renew is None or self._renewed_for == (plan.run, plan.round):
            return
        data = self.renew(plan)
        if data.fingerprint != self.data.fingerprint:
            self.data, self._cache = data, ContextCache()
        self._renewed_for = (plan.run, plan.round)

    def _private_delta(self, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        part, _ = self.agreed(plan)
        names = part_names(self.model, [part.part])
        question = self._question(plan, state)
        event = self._payments.pay(plan, question)
        for number in range(plan.local_steps):
            source = self._payments.source(question, number)
            private_step(self.model, names, self.data.histories, self._step(plan, part), source, self._cache)
        adapter_delta = self._difference(state, names)
        self._payments.note_release(event, adapter_delta.hash)
        return adapter_delta

    def _difference(self, start: AdapterState, names: Sequence[str]) -> AdapterDelta:
        """End minus start. Beyond this partner's rank no gradient is, and the noise there is dropped: it hides none."""
        if not self.rank:
            return _difference(self.model, start, names)
        return _difference(self.model, start.within_rank(self.rank), names).within_rank(self.rank)

    def agreed(self, plan: RoundPlan) -> tuple[PartPlan, PrivacyLedger]:
        """As `RoundPayments.agreed`."""
        return self._payments.agreed(plan)

    @property
    def _payments(self) -> RoundPayments:
        return RoundPayments(self.partner, self.plan, self.ledger, self.noise_root)

    def _step(self, plan: RoundPlan, part: PartPlan) -> PrivateStep:
        assert self.plan is not None  # _agreed has refused otherwise
        return PrivateStep(
            part=part.part,
            sampling_prob=part.sampling_prob,
            l2_clip_norm=part.l2_clip_norm,
            noise_std=self.plan.noise_std(part.part),
            learning_rate=plan.learning_rate,
            max_history=self.plain.max_history,
            most_users=self.most_users,
        )

    def _question(self, plan: RoundPlan, state: AdapterState, session: bytes = b"") -> str:
        bounds = (self.plain.max_history, self.most_users, *([self.rank] if self.rank else []))
        return question_of(plan, state.hash, self.data.fingerprint, self.partner, bounds, session)

    def _forget_stale_contexts(self, state: AdapterState) -> None:
        """Contexts hold as long as what computes them (LoRA and item tokens) stands still."""
        if self._cache.key != (key := reading_hash(state)):
            self._cache.key, self._cache.contexts = key, {}


def mean_counts(histories: Sequence[np.ndarray], n_items: int) -> np.ndarray:
    """Mean over users of item counts at L2 norm 1: the prior without noise."""
    total = np.zeros(n_items, np.float32)
    for history in histories:
        counts = np.bincount(history, minlength=n_items)
        total += counts / max(float(np.linalg.norm(counts)), 1.0)
    return total / max(len(histories), 1)


def _difference(model: PeftModel, start: AdapterState, names: Sequence[str]) -> AdapterDelta:
    end = adapter_parameters(model)
    ends = {name: end[name].detach().float().cpu().numpy() for name in names}
    return AdapterDelta({name: ends[name] - start.tensors[name] for name in names})
