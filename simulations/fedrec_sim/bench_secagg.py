"""What a sum under masks costs each side, in messages as they travel; beside Flower's SecAgg+ for scale."""

import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fedrec.secagg.coordinator import CoordinatorSum
from fedrec.secagg.messages import (
    Confirmation,
    Confirmations,
    Inbox,
    Keys,
    Revealed,
    Roster,
    Shares,
    SumTerms,
    Survivors,
)
from fedrec.secagg.partner import PartnerSum
from fedrec.signing import SigningKey
from fedrec.wire import RoundPlan

_T = TypeVar("_T")
_COORDINATOR = "coordinator"
Json = dict[str, Any]
Answer = Callable[[str, bytes], bytes]


@dataclass
class Meter:
    """Seconds and bytes by whom they fall to."""

    seconds: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)

    def time(self, who: str, work: Callable[[], _T]) -> _T:
        """Do a piece of work for somebody."""
        started = time.perf_counter()
        result = work()
        self.seconds[who] += time.perf_counter() - started  # type: ignore[assignment]  # a Counter of seconds
        return result


def measure_sum(partners: int, numbers: int, bits: int, lost_share: float, say: Callable[[str], None]) -> Json:
    """One whole sum, all sides in this process, one after the other; exact, or it fails.

    Args:
        bits: of a number in the sum.
        lost_share: of the partners, lost with their keys shared and their vectors not sent: the dearest way.
    Returns: `partner_s` and `partner_bytes` (up, all steps) as median and largest, `coordinator_s`, and what else the
        figures need to be read.
    """
    names = [f"partner-{number:05d}" for number in range(1, partners + 1)]
    identities = {name: SigningKey(os.urandom(32)) for name in names}
    public = {name: key.public for name, key in identities.items()}
    terms = SumTerms(_plan(), tuple(names), numbers, bits)
    lost = set(names[: int(lost_share * partners)])
    sides = {name: PartnerSum(name, identities[name], public, terms) for name in names}
    summed, meter = CoordinatorSum(terms, public), Meter()
    vector = np.random.default_rng(0).integers(-(2**12), 2**12, numbers)

    takes: dict[str, Callable[[str, bytes], None]] = {
        "advertise": lambda name, body: summed.take_keys(name, Keys.from_bytes(body)),
        "share": lambda name, body: summed.take_shares(name, Shares.from_bytes(body)),
        "mask": summed.take_masked,
        "confirm": lambda name, body: summed.take_confirmation(name, Confirmation.from_bytes(body)),
        "reveal": lambda name, body: summed.take_revealed(name, Revealed.from_bytes(body)),
    }

    def ask(asked: list[str], step: str, told: Callable[[str], bytes], answer: Answer) -> None:
        say(f"{partners} partners, {step}")
        for name in asked:
            question = meter.time(_COORDINATOR, partial(told, name))
            body = meter.time(name, partial(answer, name, question))
            meter.down[name] += len(question)
            meter.up[name] += len(body)
            meter.time(_COORDINATOR, partial(takes[step], name, body))

    def masked(name: str, body: bytes) -> bytes:
        sides[name].check_inbox(Inbox.from_bytes(body))
        return sides[name].mask(vector)

    ask(names, "advertise", lambda _: b"", lambda name, _: sides[name].keys().to_bytes())
    roster = meter.time(_COORDINATOR, lambda: summed.close_keys().to_bytes())
    ask(names, "share", lambda _: roster, lambda name, body: sides[name].shares(Roster.from_bytes(body)).to_bytes())
    meter.time(_COORDINATOR, summed.close_shares)
    left = [name for name in names if name not in lost]
    ask(left, "mask", lambda name: summed.inbox(name).to_bytes(), masked)
    meter.time(_COORDINATOR, summed.close_masked)
    ask(
        left,
        "confirm",
        lambda name: summed.survivors_for(name).to_bytes(),
        lambda name, body: sides[name].confirm(Survivors.from_bytes(body)).to_bytes(),
    )
    proof = meter.time(_COORDINATOR, lambda: summed.close_confirmations().to_bytes())
    ask(left, "reveal", lambda _: proof, lambda name, b: sides[name].reveal(Confirmations.from_bytes(b)).to_bytes())
    total = meter.time(_COORDINATOR, summed.total)
    return {
        "partners": partners,
        "parameters": numbers,
        "bits": bits,
        "lost": len(lost),
        "neighbours": terms.graph.degree,
        "exact": bool(np.array_equal(total, len(left) * vector)),
        "partner_s": statistics.median(meter.seconds[name] for name in left),
        "partner_s_largest": max(meter.seconds[name] for name in left),
        "partner_bytes": int(statistics.median(meter.up[name] for name in left)),
        "partner_bytes_down": int(statistics.median(meter.down[name] for name in left)),
        "bytes_over_fp32": statistics.median(meter.up[name] for name in left) / (4 * numbers),
        "coordinator_s": meter.seconds[_COORDINATOR],
    }


def measure_flower(partners: int, numbers: int) -> Json:
    """The two dear pieces of a client of Flower's SecAgg+ in its own functions: masks with all others, and shares.

    Its masks come from a 32-bit seed and are no protection (docs/secagg.md); this is for scale alone.
    """
    from flwr.common.secure_aggregation.crypto.shamir import create_shares
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    started = time.perf_counter()
    pseudo_rand_gen(os.urandom(32), 1 << 24, [(numbers,)])
    mask = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(2):
        create_shares(os.urandom(32), math.floor(2 * partners / 3) + 1, partners)
    shares = time.perf_counter() - started
    return {"masks_s": partners * mask, "shares_s": shares, "client_s": partners * mask + shares}


def measure_step() -> Json:
    """One private LoRA step of the demo's model on 16 users, for scale: median of five."""
    from fedrec.config import load_config
    from fedrec_sim.bench_step import StepBench
    from fedrec_sim.cli_output import DEMO
    from fedrec_sim.world import load_world

    world = load_world(load_config(DEMO))
    model = world.model(world.config.private.shape, 1)
    bench = StepBench.of(model, world.corpus(1).histories[:16], world.config.data.max_history)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        bench.step("ours")
        seconds.append(time.perf_counter() - started)
    return {"users": 16, "training_step_s": statistics.median(seconds[1:])}


def _plan() -> RoundPlan:
    digest = "0" * 64
    return RoundPlan("bench/1", 1, 1, "head", 1, 1, 1.0, digest, digest, "secagg", 2, 600.0, 1)
