"""The mechanism audit: the real release code must keep its promise, and every mutant must be caught."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import torch

from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.mechanism import Event
from fedrec.privacy.plan import PrivacyPlan
from fedrec_sim.audit.bounds import ERROR_PROBABILITY, Guesses, epsilon_at_least, refutes
from fedrec_sim.audit.mutants import CLAIM_MUTANTS, MUTANTS
from fedrec_sim.audit.order import LateLedger, watch_order
from fedrec_sim.audit.releases import CLIP, DELTA, NOISE_MULTIPLIER, STEPS, Audited, guess

REAL = {
    "worst_case": Audited(),
    "alone": Audited(canaries=1, others=0),
    "sampled": Audited(sampling_prob=0.25),
}
"""The real code: beside others, alone (absence is an empty sample), and under Poisson sampling."""

_LATE = "ledger_after_read"
# Each release is a trial for each of its canaries.
_RELEASES = {"worst_case": 2000, "alone": 1000, "no_noise_for_an_empty_sample": 1000}
_RELEASES_OF_OTHERS = 250


@dataclass(frozen=True)
class Subject:
    """What came of auditing one piece of release code.

    Attributes:
        claimed: epsilon that is claimed for it, at `DELTA`.
        at_least: epsilon that the guesses prove; None: no amount of noise explains them.
        refuted: whether the guesses refute the claim.
    """

    name: str
    guesses: Guesses
    claimed: float
    at_least: float | None
    refuted: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            **asdict(self.guesses),
            "epsilon_claimed": self.claimed,
            "epsilon_lower_bound": self.at_least,
            "refuted": self.refuted,
        }


def audit_mechanism(
    root: bytes | None = None, *, releases: int | None = None, say: Callable[[str, bool], None] = lambda *_: None
) -> dict[str, Any]:
    """Attack the real release code and every mutant of it.

    Args:
        root: 32 bytes that key every draw; None: fresh ones. A true claim fails with a probability of at most
            `ERROR_PROBABILITY` for each of the three real subjects.
        releases: of each subject, in place of the standard numbers.
        say: told each subject's name and whether it went as it should.
    Returns: `passed`, the figures of the real code, and for each mutant `caught` or `missed`.
    """
    started = time.monotonic()
    root = root or os.urandom(32)
    subjects = {}
    for subject in _all_subjects(root, releases):
        subjects[subject.name] = subject
        say(subject.name, subject.refuted != (subject.name in REAL))
    order, late = watch_order(), watch_order(LateLedger)
    say("ledger_before_read", order.passed)
    say(_LATE, not late.passed)
    mutated = [*MUTANTS, *CLAIM_MUTANTS]
    mutants = {name: subjects[name].refuted for name in mutated} | {_LATE: not late.passed}
    real = {name: subjects[name] for name in REAL}
    return {
        "passed": not any(s.refuted for s in real.values()) and order.passed and all(mutants.values()),
        "real": {name: subject.to_dict() for name, subject in real.items()},
        "ledger": {"row_touches": order.touches, "before_the_reserve": order.unpaid, "releases_noted": order.noted},
        "mutants": {name: "caught" if caught else "missed" for name, caught in mutants.items()},
        "mutant_figures": {name: subjects[name].to_dict() for name in mutated},
        "mechanism": {"steps": STEPS, "noise_multiplier": NOISE_MULTIPLIER, "l2_clip_norm": CLIP, "delta": DELTA},
        "error_probability": ERROR_PROBABILITY,
        "seconds": round(time.monotonic() - started, 1),
    }


def _all_subjects(root: bytes, releases: int | None) -> Iterator[Subject]:
    """In as many processes as there are cores, as they get ready."""
    # `spawn`: a fork of a process whose threads hold locks may hang.
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), mp_context=get_context("spawn")) as pool:
        waiting: list[Future[list[Subject]]] = [
            pool.submit(_audit, name, releases or _RELEASES.get(name, _RELEASES_OF_OTHERS), root)
            for name in (*REAL, *MUTANTS)
        ]
        for future in as_completed(waiting):
            yield from future.result()


def _audit(name: str, releases: int, root: bytes) -> list[Subject]:
    """One piece of release code against its claim; the real one's releases against the wrong claims as well."""
    torch.set_num_threads(1)  # tiny tensors; the processes share the cores
    audited = {**REAL, **MUTANTS}[name]
    guesses = guess(audited, releases, root)
    claims = {name: PrivacyPlan.events, **(CLAIM_MUTANTS if name == "worst_case" else {})}
    return [_judge(claimed, guesses, claim(audited.plan)) for claimed, claim in claims.items()]


def _judge(name: str, guesses: Guesses, events: list[Event]) -> Subject:
    claimed, at_least = epsilon_pld(events, DELTA), epsilon_at_least(guesses, events, DELTA)
    return Subject(name, guesses, claimed, at_least, refutes(guesses, events))
