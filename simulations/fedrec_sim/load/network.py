"""A real coordinator under the load of many partners: set up, enrolled, measured, each number of them anew."""

import asyncio
import os
import shutil
import ssl
import statistics
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.errors import RunError
from fedrec.files import make_folders
from fedrec.signing import SigningKey
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.round_book import RoundBook
from fedrec_sim.load.fleet import Traffic, fleet_client
from fedrec_sim.load.partner import LoadNode, LoadPartner
from fedrec_sim.load.processes import Taken, children_of, taken
from fedrec_sim.rehearsal.federations import sums_federation
from fedrec_sim.rehearsal.stage import SERVER, Actor, Stage, set_server, wait_until

Json = dict[str, Any]
Say = Callable[[str], None]
_QUORUM = 0.8
_POLL_S = 0.2
# So many nodes connect at once; partners do not all begin in the same second.
_CONNECTING = 50
_REGISTER_TIMEOUT_S, _ROUND_TIMEOUT_S = 900.0, 1800.0


@dataclass(frozen=True)
class Load:
    """How much.

    Attributes:
        numbers: float32, that an adapter and an answer have.
        idle_s: how long nobody is asked anything while the cost of mere presence is measured.
    """

    partners: int
    rounds: int
    numbers: int
    idle_s: float

    def __post_init__(self) -> None:
        if self.numbers < self.partners:
            raise RunError(f"{self.numbers} numbers for {self.partners} partners", "take a larger adapter")


def measure(folder: Path, load: Load, say: Say) -> Json:
    """Set up a coordinator in a new folder, load it, end it.

    Returns: figures of one number of partners; bytes and calls are of a partner and a round.
    Raises: RunError: it could not be set up, or stood still.
    """
    make_folders(folder)
    catalog = folder / "catalog.parquet"
    write_catalog(ItemCatalog(("a",), ("A",), ("A.",), (("Drama",),), (1999,)), catalog)
    federation = folder / "federation"
    quorum = max(1, int(_QUORUM * load.partners))
    made = sums_federation(catalog, rounds=load.rounds, quorum=quorum, numbers=load.numbers)
    made.write(federation)
    stage = Stage(folder, Actor("server", folder / "server", SERVER), {})
    try:
        changes = {"timeout_s = 600.0": f"timeout_s = {_ROUND_TIMEOUT_S}", "pause_s = 30.0": "pause_s = 1.0"}
        # All come from one address here, each on a connection or two of its own.
        changes["connections_per_address = 256"] = f"connections_per_address = {max(256, 4 * load.partners)}"
        set_server(stage, federation, say, changes)
        return _loaded(stage, load, say)
    finally:
        stage.close()


def _loaded(stage: Stage, load: Load, say: Say) -> Json:
    began = time.monotonic()
    partners = _enrol(stage, load.partners)
    enrolled = time.monotonic()
    say(f"{load.partners} partners enrolled in {enrolled - began:.1f} s")
    book = PartnerBook(stage.coordinator.database)
    every = "every partner to be registered with Flower"
    wait_until(lambda: all(p.node_id for p in book.partners("approved")), every, _REGISTER_TIMEOUT_S)
    registered = time.monotonic()
    say(f"registered with Flower in {registered - enrolled:.1f} s")
    found = asyncio.run(_Crowd(stage, partners, load, say).measure())
    seconds = {"enrol_s": round(enrolled - began, 2), "register_s": round(registered - enrolled, 2)}
    return {"partners": load.partners, **seconds, **found, "exact": _answers_are_in_the_sum(stage, load)}


def _enrol(stage: Stage, number: int) -> list[LoadPartner]:
    """Through the real book, as the gateway does when an invitation is used."""
    coordinator = stage.coordinator
    book, terms = PartnerBook(coordinator.database), coordinator.federation().terms
    public, partners = coordinator.signing_key().public, []
    for place in range(number):
        name = f"load-{place + 1:05d}"
        node_key, signing_key = ec.generate_private_key(ec.SECP384R1()), SigningKey(os.urandom(32))
        secret = book.invite(name, valid_for=timedelta(hours=1), is_approved=True)
        node = b64encode(public_key_to_bytes(node_key.public_key())).decode()
        book.enrol(name, secret, node_key=node, signing_key=signing_key.public.hex())
        book.set_status(name, "approved", who="load")
        partners.append(LoadPartner(name, place, terms, public, node_key, signing_key))
    return partners


@dataclass
class _Crowd:
    """All partners' nodes in this process, and the meters beside them."""

    stage: Stage
    partners: list[LoadPartner]
    load: Load
    say: Say
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._pids = children_of(self.stage.server.process.pid) if self.stage.server.process else {}
        self._rounds = RoundBook(self.stage.coordinator.database)

    async def measure(self) -> Json:
        """Connect, be idle, answer every round."""
        context = ssl.create_default_context(cafile=self.stage.coordinator.keys / "ca.pem")
        address = f"localhost:{self.stage.coordinator.settings.gateway.port}"
        async with AsyncExitStack() as stack:
            nodes = []
            for partner in self.partners:
                client = fleet_client(address, context, partner.node_key, self.traffic)
                nodes.append(LoadNode(partner, await stack.enter_async_context(client)))
            began = time.monotonic()
            await self._connect(nodes)
            connect_s = time.monotonic() - began
            self.say(f"connected in {connect_s:.1f} s")
            tasks = [asyncio.create_task(do) for node in nodes for do in (node.beat(), node.work())]
            try:
                idle = await self._metered(self._be_idle(), tasks)
                self.say(f"idle for {self.load.idle_s:g} s")
                busy = await self._metered(self._run_rounds(), tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return {"connect_s": round(connect_s, 2), "idle": self._idle_told(idle), **self._rounds_told(busy)}

    async def _connect(self, nodes: list[LoadNode]) -> None:
        doors = asyncio.Semaphore(_CONNECTING)

        async def one(node: LoadNode) -> None:
            async with doors:
                await node.activate()

        await asyncio.gather(*(one(node) for node in nodes))

    async def _be_idle(self) -> None:
        await asyncio.sleep(self.load.idle_s)

    async def _run_rounds(self) -> None:
        await asyncio.to_thread(self.stage.server_says, "resume")
        deadline, told = time.monotonic() + _ROUND_TIMEOUT_S * self.load.rounds, 0
        while told < self.load.rounds:
            if time.monotonic() > deadline:
                raise RunError(f"{told} of {self.load.rounds} rounds", f"read the logs in {self.stage.folder}")
            await asyncio.sleep(_POLL_S)
            for found in (await asyncio.to_thread(self._committed))[told:]:
                told += 1
                self.say(f"round {found['round']} in {found['seconds']:.1f} s, {len(found['reasons'])} lost")

    def _committed(self) -> list[Json]:
        """In the order of the rounds."""
        return [one for one in reversed(self._rounds.latest(10_000)) if one["status"] == "committed"]

    async def _metered(self, doing: Any, tasks: list[asyncio.Task[None]]) -> "_Meter":
        """What it took, in processes and on the wire. Raises what a node's task raised: it must not end."""
        before, traffic, mine = self._taken(), self.traffic.copy(), time.process_time()
        began = time.monotonic()
        done, _ = await asyncio.wait([main := asyncio.ensure_future(doing), *tasks], return_when="FIRST_COMPLETED")
        if main not in done:
            main.cancel()
        for task in done:
            task.result()
        after = self._taken()
        cpu = {name: after[name].cpu_s - before[name].cpu_s for name in after}
        peaks = {name: found.peak_rss_bytes for name, found in after.items()}
        seconds = time.monotonic() - began
        return _Meter(seconds, cpu, peaks, self.traffic.since(traffic), time.process_time() - mine)

    def _taken(self) -> dict[str, Taken]:
        return {name: taken(pid) for name, pid in self._pids.items()}

    def _idle_told(self, meter: "_Meter") -> Json:
        n = self.load.partners
        shares = {name: round(cpu / meter.seconds, 4) for name, cpu in meter.cpu_s.items()}
        calls = meter.traffic.calls.total() / n / meter.seconds * 60
        return {"cpu_share": shares, "calls_per_partner_and_minute": round(calls, 2)}

    def _rounds_told(self, meter: "_Meter") -> Json:
        rounds, n = self._committed(), self.load.rounds
        each, seconds = n * self.load.partners, [round(one["seconds"], 2) for one in rounds]
        attempts = self._rounds.latest(10_000)
        lost = Counter(reason for one in attempts for reason in one["reasons"].values())
        traffic, good = meter.traffic, [one["partners"] for one in rounds]
        return {
            "seconds": seconds,
            "median_s": statistics.median(seconds),
            "attempts": len(attempts),
            "good_answers": [one if isinstance(one, int) else len(one) for one in good],
            "lost": dict(lost.most_common()),
            "wire_bytes_up": round(traffic.up / each),
            "wire_bytes_down": round(traffic.down / each),
            "tensor_bytes": 4 * self.load.numbers,
            "calls_per_partner": round(traffic.calls.total() / each, 2),
            "calls": {name: round(count / each, 2) for name, count in sorted(traffic.calls.items())},
            "failed_calls": dict(sorted(traffic.failures.items())),
            "peak_rss_bytes": meter.peak_rss_bytes,
            "cpu_s_per_round": {name: round(cpu / n, 2) for name, cpu in meter.cpu_s.items()},
            "load_cpu_s_per_round": round(meter.own_cpu_s / n, 2),
        }


@dataclass(frozen=True)
class _Meter:
    seconds: float
    cpu_s: dict[str, float]
    peak_rss_bytes: dict[str, int]
    traffic: Traffic
    own_cpu_s: float


def _answers_are_in_the_sum(stage: Stage, load: Load) -> bool:
    """Whether each round moved the adapter by exactly one answer of each of as many partners as it says."""
    registry = stage.coordinator.registry
    for one in RoundBook(stage.coordinator.database).latest(10_000):
        if one["status"] != "committed":
            continue
        before, after = (registry.load(number).tensors["w"] for number in (one["round"] - 1, one["round"]))
        counted = one["partners"] if isinstance(one["partners"], int) else len(one["partners"])
        moved = (after.astype(float) - before) * counted
        whole = abs(moved[: load.partners] - 1.0) < 1e-3
        if int(whole.sum()) != counted or abs(moved).sum() - counted > 1e-2 * counted:
            return False
    return True


def sweep(folder: Path, loads: list[Load], say: Say) -> Json:
    """Measure each number of partners, one after the other, each in a folder of its own; what was there is removed.

    Raises: RunError: as `measure`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    sizes = [measure(folder / f"{load.partners}-partners", load, say) for load in loads]
    shared = {name: value for name, value in asdict(loads[0]).items() if name in ("rounds", "numbers")}
    return {**shared, "cores": os.cpu_count(), "sizes": sizes}
