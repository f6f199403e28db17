"""Simulated partners: each one's worker is made when it is asked, and only a few are kept."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel

from fedrec.config import SimulationConfig
from fedrec.errors import LedgerError, ProtocolError
from fedrec.files import make_folders, storage_errors
from fedrec.model.recommender import adapter_parameters, tensor_parts
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.secagg.messages import SumTerms
from fedrec.signing import SigningKey
from fedrec.training.local import PlainSettings
from fedrec_client.link import register_all
from fedrec_client.sums import RoundWorker, SumDesk, SumRules
from fedrec_client.worker import PartnerData, Worker
from fedrec_sim.pooled_ledgers import LedgerPool, PooledLedger
from fedrec_sim.run import Run
from fedrec_sim.seeds import seeded_root
from fedrec_sim.simulated_partner import Lost, PlainSums, SimulatedPartner, WatchedSource, losses_of, repeatable
from fedrec_sim.world import Corpus

# Workers that are kept with what they have read, the latest asked; memory grows with this, not with the partners.
KEPT_WORKERS = 64


@dataclass(frozen=True)
class Account:
    """One budget for several trainings on the same data, as a search's trials are.

    Attributes:
        folder: of every partner's ledger.
        dataset: name of the data in them.
        epsilon: that all trainings together may cost, at each one's own delta.
    """

    folder: Path
    dataset: str
    epsilon: float


@dataclass
class Partners:
    """The partners of one row.

    Attributes:
        label: row and seed, `federated_dp-1`.
        model: shared; each worker loads the round's adapter first.
        plan: that all of them agreed to, or None without privacy.
        shares: user positions of each partner.
        account: shared with other trainings; None: the row has one of its own.
        stand_in: takes a partner's name and worker and gives who answers in its place: itself, or somebody hostile.
    """

    config: SimulationConfig
    corpus: Corpus = field(repr=False)
    run: Run
    label: str
    seed: int
    model: PeftModel = field(repr=False)
    plan: PrivacyPlan | None
    shares: tuple[np.ndarray, ...] = field(repr=False)
    account: Account | None = None
    stand_in: Callable[[str, Worker], RoundWorker] = field(default=lambda _, worker: worker, repr=False)
    _kept: OrderedDict[str, RoundWorker] = field(default_factory=OrderedDict, repr=False)
    _desks: dict[str, SumDesk] = field(default_factory=dict, repr=False)
    _identities: dict[str, SigningKey] = field(default_factory=dict, repr=False)
    plain_sums: PlainSums = field(default_factory=PlainSums, repr=False)
    _is_vetted: bool = False

    @cached_property
    def names(self) -> list[str]:
        """Of every partner, in the order of the shares: `partner-07` of 10."""
        width = len(str(len(self.shares)))
        return [f"partner-{number:0{width}d}" for number in range(1, len(self.shares) + 1)]

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Of every partner's LoRA, dealt in turn; empty where all have the shape's."""
        kind = self.config.plain if self.plan is None else self.config.private
        return {name: kind.ranks[place % len(kind.ranks)] for name, place in self._places.items()} if kind.ranks else {}

    @property
    def place(self) -> str:
        """What comes before the name in each worker's address."""
        return f"{self.run.folder}/{self.label}"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, every worker is reachable in this process."""
        register_all(self.place, self.find)
        try:
            yield
        finally:
            register_all(self.place, None)
            self._kept.clear()
            self._desks.clear()

    def enrol(self, *, begun: bool) -> None:
        """Make or check every partner's ledger. Raises LedgerError: one is missing though the row has begun."""
        if self.plan is None:
            return
        private = self.config.private
        for name in self.names:
            ledger = self.ledger(name)
            if isinstance(ledger, PooledLedger):
                ledger.enrol(private.epsilon, private.delta, begun=begun)
            else:
                self._enrol(name, begun=begun)

    def find(self, name: str) -> SimulatedPartner:
        """A partner as others reach it. Raises ProtocolError if there is no such partner."""
        if name not in self._places:
            raise ProtocolError(f"no partner {name!r}")
        return SimulatedPartner(name, lambda: self._worker(name), self._desk(name), self._lost)

    def identity(self, name: str) -> SigningKey:
        """A partner's long-lived key, from its noise key, so that a run goes on with the same ones."""
        if name not in self._identities:
            self._identities[name] = SigningKey(hashlib.sha256(b"identity|" + self._noise_root(name)).digest())
        return self._identities[name]

    def check_sum(self, terms: SumTerms, survivors: tuple[str, ...], total: NDArray[np.int64]) -> None:
        """Hold an opened sum against the plain one. Raises RunError: they differ."""
        self.plain_sums.compare(terms, survivors, total)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def _lost(self) -> Lost:
        return losses_of(self.names, self.config.rounds.losses, self.seed)

    @cached_property
    def _peers(self) -> dict[str, bytes]:
        """Everybody accepts everybody: a simulation has one owner."""
        return {name: self.identity(name).public for name in self.names}

    def _desk(self, name: str) -> SumDesk | None:
        """Kept for the whole row: its secrets must last from one step of a sum to the next."""
        rounds = self.config.rounds
        if self.plan is None or self.plan.mode != "secagg" or not rounds.masks:
            return None
        if name not in self._desks:
            rules = SumRules(self.plan, self._numbers, rounds.range_users)
            source = WatchedSource(name, lambda: self._worker(name), self.plain_sums)
            secrets = partial(repeatable, self._noise_root(name))
            self._desks[name] = SumDesk(name, self.identity(name), lambda: self._peers, rules, source, secrets)
        return self._desks[name]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        parts: dict[str, int] = {}
        part_of = tensor_parts(self.model)
        for name, parameter in adapter_parameters(self.model).items():
            parts[part_of[name]] = parts.get(part_of[name], 0) + parameter.numel()
        return parts

    def _worker(self, name: str) -> RoundWorker:
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        worker = self.stand_in(name, self._made(name))
        self._kept[name] = worker
        while len(self._kept) > KEPT_WORKERS:
            self._kept.popitem(last=False)
        return worker

    def _made(self, name: str) -> Worker:
        config, users = self.config, self.shares[self._places[name]]
        settings = PlainSettings(
            config.plain.learning_rate,
            config.plain.weight_decay,
            config.plain.batch_users,
            config.data.max_history,
        )
        worker = Worker(
            partner=name,
            model=self.model,
            data=PartnerData.of(self.corpus.trained_on(users)),
            plan=self.plan,
            ledger=self.ledger(name) if self.plan else None,
            noise_root=self._noise_root(name),
            plain=settings,
            most_users=self._most_users,
            rank=self.ranks.get(name, 0),
            is_vetted=self._is_vetted,
        )
        self._is_vetted = True
        return worker

    def _enrol(self, name: str, *, begun: bool) -> None:
        """A ledger that is gone is not made anew: it would have forgotten what was spent.

        Rows and seeds of a simulation are what-if worlds: none of them knows what another released. So each has data
        sets of its own; outside simulations a data set has one ledger, whatever is trained on it.
        """
        path = self._ledger_path(name)
        if begun and not path.is_file():
            raise LedgerError(
                f"{path}: the ledger of a run that has begun is missing", "restore it, or start a new run"
            )
        if path.exists():  # as well if the row was stopped before its first commit
            PrivacyLedger.open(path, partner=name, dataset=self._dataset)
            return
        with storage_errors(path.parent):
            make_folders(path.parent)
        epsilon = self.account.epsilon if self.account else self.config.private.epsilon
        budget = {"budget_epsilon": epsilon, "budget_delta": self.config.private.delta}
        PrivacyLedger.create(path, partner=name, dataset=self._dataset, **budget)

    def ledger(self, name: str) -> PrivacyLedger:
        """A partner's; not opened yet: every use checks all of it."""
        if self.config.private.ledger == "pooled":
            return PooledLedger(self._pool, partner=name, dataset=self._dataset)
        return PrivacyLedger(self._ledger_path(name), partner=name, dataset=self._dataset)

    @cached_property
    def _most_users(self) -> int:
        """The simulation declares how many users a partner has; in earnest configuration does."""
        return max(map(len, self.shares))

    @cached_property
    def _pool(self) -> LedgerPool:
        return LedgerPool(self.run.folder / "ledger" / f"{self.label}.pool")

    @property
    def _dataset(self) -> str:
        return self.account.dataset if self.account else f"{self.config.data.source}/{self.label}"

    def _ledger_path(self, name: str) -> Path:
        folder = self.account.folder if self.account else self.run.folder / "ledger" / self.label
        return folder / f"{name}.sqlite"

    def _noise_root(self, partner: str) -> bytes:
        """Each partner's own noise key: from the run's seed, or from a secret of the run folder."""
        if self.config.private.noise_source == "secret":
            return hashlib.sha256(self.run.noise_root() + f"|{self.seed}|{partner}".encode()).digest()
        return hashlib.sha256(seeded_root(self.seed) + partner.encode()).digest()
