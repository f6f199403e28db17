"""One attacker behind some of a simulation's partners; the coordinator and the honest ones run unmodified."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedrec.config import SimulationConfig
from fedrec.defence import AttackName
from fedrec.model.adapter import AdapterDelta, AdapterState
from fedrec.model.recommender import reading_hash
from fedrec.privacy.integer_code import IntegerCode
from fedrec.training.local import ContextCache
from fedrec.wire import RoundPlan, UpdateHeader
from fedrec_client.sums import RoundWorker
from fedrec_client.worker import PartnerData, Worker
from fedrec_sim.attacks.forged import FROM_ALL, FROM_OWN, forge, median_norm
from fedrec_sim.attacks.poisoned import NoiselessTraining, with_item_planted, with_other_items
from fedrec_sim.partners import Partners

Answer = tuple[UpdateHeader, AdapterDelta]
Answers = Callable[[RoundPlan, AdapterState], AdapterDelta]


@dataclass
class Remembering:
    """An honest partner whose last answer is kept, so that an attacker who knows it need not compute it again."""

    worker: RoundWorker
    _key: tuple[str, int, int] = field(default=("", 0, 0), repr=False)
    _answer: Answer | None = field(default=None, repr=False)

    def train(self, plan: RoundPlan, state: AdapterState) -> Answer:
        """See `WorkerLink`."""
        key = (state.hash, plan.round, plan.attempt)
        if self._answer is None or self._key != key:
            self._key, self._answer = key, self.worker.train(plan, state)
        return self._answer

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:
        """See `IntegerSource`."""
        return self.worker.integers(plan, state, code, session)


@dataclass(frozen=True)
class Hostile:
    """A hostile partner: answers under its own name, with what the attacker wants."""

    partner: str
    answers: Answers = field(repr=False)

    def train(self, plan: RoundPlan, state: AdapterState) -> Answer:
        """See `WorkerLink`."""
        sent = self.answers(plan, state)
        named = (plan.run, plan.round, plan.attempt, self.partner)
        return UpdateHeader(*named, delta_hash=sent.hash, plan_hash=plan.privacy_plan_hash), sent

    def integers(self, plan: RoundPlan, state: AdapterState, code: IntegerCode, session: bytes) -> NDArray[np.int64]:  # noqa: ARG002  # see `IntegerSource`
        """See `IntegerSource`: the same answer in grains, as far as it fits without wrapping the sum."""
        sent = self.answers(plan, state).tensors
        flat = np.concatenate([sent[name].reshape(-1) for name in sorted(sent)]).astype(np.float64)
        largest = 2 ** (code.bits - 2)
        return np.rint(np.clip(flat / (-plan.learning_rate * code.grain), -largest, largest)).astype(np.int64)


@dataclass
class Attacker:
    """Who is behind the hostile partners: the last ones by name.

    Attributes:
        promoted: code of the item that is pushed.
        contexts: the LLM's reading of each partner's users, kept from one training to the next.
    """

    attack: AttackName
    config: SimulationConfig
    partners: Partners = field(repr=False)
    promoted: int
    contexts: dict[str, ContextCache] = field(default_factory=dict, repr=False)

    def stand_in(self, name: str, worker: Worker) -> RoundWorker:
        """Who answers in a partner's place; see `Partners`."""
        self._keep_contexts(name, worker)
        if self.attack == "none" or name not in self.hostile:
            return Remembering(worker)
        return Hostile(name, self._answers(name, worker))

    @property
    def hostile(self) -> list[str]:
        """Names of the hostile partners."""
        return self.partners.names[-self.config.attack.hostile :]

    def _answers(self, name: str, worker: Worker) -> Answers:
        if self.attack in (*FROM_OWN, *FROM_ALL):
            return lambda plan, state: self._forged(name, worker, plan, state)
        if self.attack == "sybil" and name != self.hostile[0]:  # one training, sent under every name
            return lambda plan, state: self.partners.find(self.hostile[0]).train(plan, state)[1]
        return self._poisoned(name, worker)

    def _forged(self, name: str, worker: Worker, plan: RoundPlan, state: AdapterState) -> AdapterDelta:
        honest = self._honest(plan, state) if self.attack in FROM_ALL else []
        own = honest[0] if honest else worker.train(plan, state)[1]
        rng = np.random.default_rng([self.partners.seed, plan.round, *name.encode()])
        return forge(self.attack, own, honest, self.config.attack.strength, rng)

    def _poisoned(self, name: str, worker: Worker) -> Answers:
        histories, strength = self._tampered(worker), self.config.attack.strength
        train = self._training(name, worker, histories)

        def answers(plan: RoundPlan, state: AdapterState) -> AdapterDelta:
            sent = train(plan, state)
            if self.attack == "promotion":
                return sent.scaled(strength.promotion)
            if self.attack == "sybil" and sent.l2_norm:  # as long as an honest answer, which clipping lets through
                return sent.scaled(median_norm(self._honest(plan, state)) / sent.l2_norm)
            return sent

        remembered = Remembering(Hostile(name, answers))
        return lambda plan, state: remembered.train(plan, state)[1]

    def _training(self, name: str, worker: Worker, histories: list[np.ndarray]) -> Answers:
        if worker.plan is None:
            poisoned = replace(worker, data=PartnerData.of(histories), _cache=ContextCache())
            return lambda plan, state: poisoned.train(plan, state)[1]
        cache = self.contexts.setdefault(f"{name} {self.attack}", ContextCache())
        trained = NoiselessTraining(worker.model, worker.plan, histories, worker.plain.max_history, cache)

        def answers(plan: RoundPlan, state: AdapterState) -> AdapterDelta:
            if cache.key != (key := reading_hash(state)):
                cache.key, cache.contexts = key, {}
            return trained.answer(plan, state)

        return answers

    def _tampered(self, worker: Worker) -> list[np.ndarray]:
        histories = worker.data.histories
        if self.attack == "label-flip":
            return with_other_items(histories, len(self.partners.corpus.popularity))
        return with_item_planted(histories, self.promoted)

    def _honest(self, plan: RoundPlan, state: AdapterState) -> list[AdapterDelta]:
        """What all honest partners send in this round: more than an attacker can know, so the worst case."""
        names = [name for name in self.partners.names if name not in self.hostile]
        return [self.partners.find(name).train(plan, state)[1] for name in names]

    def _keep_contexts(self, name: str, worker: Worker) -> None:
        worker._cache = self.contexts.setdefault(name, worker._cache)
