"""What must hold after a rehearsal, read from the folders that it left behind."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrec.rows import Mode
from fedrec_client.agreement import Agreement
from fedrec_client.node import adapters_of
from fedrec_client.worker_process import open_ledger
from fedrec_server.state.round_book import RoundBook
from fedrec_sim.rehearsal.stage import Stage

_NOTE = re.compile(r"run (\S+) round (\d+)")


def committed_rounds(stage: Stage) -> dict[int, dict[str, Any]]:
    """The attempt by which each round was committed."""
    found = RoundBook(stage.coordinator.database).latest(100_000)
    return {one["round"]: one for one in found if one["status"] == "committed"}


def sums_are_exact(stage: Stage, powers: Mapping[str, int], mode: Mode = "inspect") -> bool:
    """Whether every round moved the adapter by the mean of exactly those partners' powers of two that it names.

    Of n partners the sum is n times the mean; powers are small enough that float32 holds both, and a partner that is
    missing or counted twice changes it by one at least.
    """
    registry, rounds = stage.coordinator.registry, committed_rounds(stage)
    if sorted(rounds) != list(range(1, len(rounds) + 1)) or registry.verify() != len(rounds) + 1:
        return False
    for number, told in rounds.items():
        before, after = (registry.load(n).tensors["w"].astype(np.float64) for n in (number - 1, number))
        moved = (after - before) * len(told["partners"])
        expected = sum(2 ** powers[name] for name in told["partners"])
        moved = moved if mode == "inspect" else -moved  # what is added up under masks is a gradient, not a step
        if round(moved[0]) != expected or not math.isclose(moved[0], expected, rel_tol=1e-4) or moved[1:].any():
            return False
    return True


def ledgers_are_whole(stage: Stage) -> bool:
    """Whether every answer that counted was paid for and noted as released by the partner's own ledger, once."""
    rounds = committed_rounds(stage)
    for name in stage.clients:
        chain = open_ledger(stage.node(name)).chain()  # checks every record and the anchor
        notes = {event: _NOTE.search(record.note) for event, record in chain.reserved.items()}
        released = [int(found[2]) for event, found in notes.items() if found and event in chain.released]
        counted = [number for number, told in rounds.items() if name in told["partners"]]
        if len(released) != len(set(released)) or not set(counted) <= set(released):
            return False
    return True


def adapters_are_verified(stage: Stage) -> bool:
    """Whether every partner holds the coordinator's newest version, whole, under a signature that it checked."""
    head = stage.coordinator.registry.head()
    for name in stage.clients:
        node = stage.node(name)
        held = adapters_of(node, Agreement.read(node)).held()
        if head is None or held is None or (held.round, held.adapter_hash) != (head.round, head.adapter_hash):
            return False
        adapters_of(node, Agreement.read(node)).load()
    return True


def budgets_are_kept(stage: Stage) -> bool:
    """Whether no ledger holds more than its owner allowed, and no file of keys or rows is open to others."""
    for name in stage.clients:
        node = stage.node(name)
        if open_ledger(node).chain().spent() > node.settings.policy.epsilon_total:
            return False
        if any(path.stat().st_mode & 0o077 for path in (node.keys, node.data, node.run, node.state)):
            return False
    return True
