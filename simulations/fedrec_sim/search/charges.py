"""What a search costs: nothing on public or made data; on private ones every trial and every look is charged."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fedrec.config import SimulationConfig
from fedrec.data.datasets import Interactions, generated_from
from fedrec.data.sources import list_sources
from fedrec.errors import BudgetError, ConfigError
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.clipping import BoundedSum
from fedrec.privacy.mechanism import Event
from fedrec.privacy.noise import NoiseSource, add_noise
from fedrec.privacy.plan import PrivacyPlan
from fedrec.rows import is_private, row_mode
from fedrec_client.payments import event_of
from fedrec_sim.federation import private_plan
from fedrec_sim.partners import Partners
from fedrec_sim.run import Json
from fedrec_sim.search.settings import SearchConfig

_PART = "validation"


def why_free(config: SimulationConfig, search: SearchConfig, table: Interactions) -> str | None:
    """In words, why a search costs nobody's privacy; None if it does."""
    if not is_private(search.row):
        return f"row {search.row} promises no privacy"
    if config.data.source in {source.name for source in list_sources() if source.kind == "data"}:
        return f"{config.data.source} is a published data set"
    if made := generated_from(table):
        return made
    return "declared to be public (data_is_public)" if search.data_is_public else None


@dataclass(frozen=True)
class Charge:
    """What is paid for each trial of a charged search, the same for all of them.

    Attributes:
        plan: of every trial; keys that would change its events are refused.
        noise_multiplier: on a trial's validation sum.
        budget_epsilon: of each partner's data, for the whole search, at the plan's delta.
    """

    plan: PrivacyPlan
    noise_multiplier: float
    budget_epsilon: float

    def total(self, trials: int) -> float:
        """Epsilon of so many trials together, each with the figure by which it is judged (PLD)."""
        events: list[Event] = [*self.plan.events(), (_PART, 1.0, self.noise_multiplier, 1)]
        every = [(part, prob, noise, steps * trials) for part, prob, noise, steps in events]
        return epsilon_pld(every, self.plan.delta)

    def refuse_too_many(self, trials: int) -> None:
        """Raises BudgetError: before anything is read, with the cost and how many trials the budget pays for."""
        if (total := self.total(trials)) <= self.budget_epsilon:
            return
        fits = 0
        while self.total(fits + 1) <= self.budget_epsilon:
            fits += 1
        raise BudgetError(
            f"{trials} trials at epsilon {self.plan.epsilon():.2f} each cost epsilon {total:.2f} together at delta "
            f"{self.plan.delta:g}, each with a look at validation; search.budget_epsilon is {self.budget_epsilon:g}",
            f"{f'at most {fits} trials' if fits else 'no trial'} fit: ask for fewer, lower private.epsilon, or search "
            "on public or made data, which costs nothing",
        )

    def to_dict(self, trials: int) -> Json:
        """For people, beside the results."""
        return {
            "trial_epsilon": self.plan.epsilon(),
            "delta": self.plan.delta,
            "validation_noise_multiplier": self.noise_multiplier,
            "budget_epsilon": self.budget_epsilon,
            "total_epsilon": self.total(trials),
        }


def charge_of(config: SimulationConfig, search: SearchConfig) -> Charge:
    """Raises ConfigError: private data without a budget, with a seed for noise, or with ledgers that are not synced."""
    config = config.for_row(search.row)
    problems = []
    if search.budget_epsilon is None:
        problems.append("search.budget_epsilon: the data are private, so say what the whole search may cost")
    if config.private.noise_source != "secret":
        problems.append('private.noise_source: "secret" on private data; a seed would let anybody take the noise off')
    if config.private.ledger != "own":
        problems.append('private.ledger: "own" on private data; a pool is never synced')
    mode = row_mode(search.row)
    if problems or search.budget_epsilon is None or mode is None:
        raise ConfigError.of_all(problems, "or set search.data_is_public, if they may be published", "search")
    return Charge(private_plan(config, mode), search.validation_noise, search.budget_epsilon)


@dataclass(frozen=True)
class Release:
    """The noised validation figure of one trial.

    Attributes:
        run: name of the trial's training, unique.
        root: secret of the trial's noise, 32 bytes.
        n_users: declared, public; what the sum is divided by.
    """

    charge: Charge
    partners: Partners = field(repr=False)
    run: str
    root: bytes = field(repr=False)
    n_users: int

    def noised_mean(self, question: str, total: Callable[[], float]) -> float:
        """Pay, then sum, then add noise: the figure that a trial is judged by.

        Args:
            question: names adapter and data; the same one gets the same answer, and costs once.
            total: gives the sum over users of a metric in [0, 1]; private; called once all have paid.
        Raises: BudgetError, LedgerError: of the first partner whose ledger refuses; nothing was read.
        Privacy: a Gaussian mechanism on a sum that one user moves by 1 at most. A user is at one partner, whose
            ledger is charged; adapters of earlier trials, which the question depends on, were released before.
        """
        asked = hashlib.sha256(f"{_PART}|{self.run}|{question}".encode()).hexdigest()
        event, plan = event_of(self.root, asked), self.charge.plan
        for name in self.partners.names:
            self.partners.ledger(name).reserve(
                event,
                plan_hash=plan.hash,
                run=self.run,
                part=_PART,
                sampling_prob=1.0,
                noise_multiplier=self.charge.noise_multiplier,
                steps=1,
                most_steps=1,
                note=f"run {self.run}: validation",
            )
        bounded = BoundedSum(torch.tensor([total()], dtype=torch.float32), 1.0)
        source = NoiseSource.from_root(self.root, asked.encode())
        noised = float(add_noise(bounded, self.charge.noise_multiplier, source)[0])
        released = hashlib.sha256(repr(noised).encode()).hexdigest()
        for name in self.partners.names:
            self.partners.ledger(name).release(event, released)
        return noised / self.n_users
