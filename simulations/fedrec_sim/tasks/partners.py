"""The partners of a head's training, each with worker, ledger and keys of its own."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from fedrec.errors import ProtocolError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.signing import SigningKey
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import TaskHead
from fedrec.tasks.terms import TaskTerms
from fedrec_client.link import register_all
from fedrec_client.sums import SumDesk, SumRules, numbers_of
from fedrec_client.task_worker import TaskWorker
from fedrec_server.rounds.masked import MaskedRounds
from fedrec_sim.pooled_ledgers import LedgerPool, PooledLedger
from fedrec_sim.seeds import seeded_root
from fedrec_sim.simulated_partner import PlainSums, SimulatedPartner, WatchedSource, repeatable
from fedrec_sim.tasks.rounds import TaskPromise, TaskRounds


@dataclass
class TaskPartners:
    """Whom the coordinator of a simulation asks.

    Attributes:
        shares: of each partner, private.
        plan, promise: None together, for no privacy.
        folder: of the ledgers.
    """

    terms: TaskTerms
    shares: tuple[TaskExamples, ...] = field(repr=False)
    rounds: TaskRounds
    run: str
    seed: int
    plan: PrivacyPlan | None
    promise: TaskPromise | None
    folder: Path
    _workers: dict[str, TaskWorker] = field(default_factory=dict, repr=False)
    _desks: dict[str, SumDesk] = field(default_factory=dict, repr=False)
    _sums: PlainSums = field(default_factory=PlainSums, repr=False)

    @cached_property
    def names(self) -> list[str]:
        """In the order of the shares."""
        return [f"partner-{number}" for number in range(1, len(self.shares) + 1)]

    @property
    def place(self) -> str:
        """What comes before the name in each worker's address."""
        return f"{self.folder}/{self.run}"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, every partner is reachable in this process, and has its ledger."""
        pool = LedgerPool(self.folder / "ledger.pool") if self.plan else None
        self._workers = {name: self._made(place, pool) for place, name in enumerate(self.names)}
        register_all(self.place, self._find)
        try:
            yield
        finally:
            register_all(self.place, None)
            if pool is not None:
                pool.close()

    @property
    def masked(self) -> MaskedRounds | None:
        """What sums under masks need; None where there are none."""
        if self.plan is None or self.plan.mode != "secagg":
            return None
        keys = {name: self._identity(name).public for name in self.names}
        return MaskedRounds(self.plan, self.rounds.range_users, keys, audit=self._sums.compare)

    def _find(self, name: str) -> SimulatedPartner:
        if name not in self._workers:
            raise ProtocolError(f"no partner {name!r}")
        return SimulatedPartner(name, lambda: self._workers[name], self._desk(name), lambda _: {})

    def _made(self, place: int, pool: LedgerPool | None) -> TaskWorker:
        name, terms = self.names[place], self.terms
        ledger = None
        if pool is not None and self.promise is not None:
            ledger = PooledLedger(pool, partner=name, dataset=self.run)
            ledger.enrol(self.promise.epsilon, self.promise.delta, begun=False)
        head = TaskHead(terms.shape)
        examples, root = self.shares[place], self._noise_root(name)
        return TaskWorker(name, head, terms.task, examples, self.plan, ledger, root, self.rounds.work)

    def _desk(self, name: str) -> SumDesk | None:
        """Kept for the whole training: its secrets must last from one step of a sum to the next."""
        if self.plan is None or self.plan.mode != "secagg":
            return None
        if name not in self._desks:
            rules = SumRules(self.plan, numbers_of(self.terms.spec.parts), self.rounds.range_users)
            source = WatchedSource(name, lambda: self._workers[name], self._sums)
            peers = {other: self._identity(other).public for other in self.names}
            secrets = partial(repeatable, self._noise_root(name))
            self._desks[name] = SumDesk(name, self._identity(name), lambda: peers, rules, source, secrets)
        return self._desks[name]

    def _identity(self, name: str) -> SigningKey:
        return SigningKey(hashlib.sha256(b"identity|" + self._noise_root(name)).digest())

    def _noise_root(self, name: str) -> bytes:
        return hashlib.sha256(self._root + name.encode()).digest()

    @cached_property
    def _root(self) -> bytes:
        """From the seed, or from the operating system and kept nowhere."""
        seeded = self.promise is None or self.promise.noise_source == "seeded"
        return seeded_root(self.seed) if seeded else os.urandom(32)
