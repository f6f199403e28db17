"""The ledger against SIGKILL at every sync, against power loss, and against two processes that race."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.privacy.ledger_chain import CREATED_RECORDS, Chain

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
COST = {"plan_hash": "p", "part": "head", "sampling_prob": 1.0, "noise_multiplier": 2.0, "steps": 1}
COST |= {"run": "r", "most_steps": 10_000}
SYNCS = ("fsync", "fdatasync")

# Two rounds of a worker: reserve, read, release, send. `rows` stands for the data, the markers for what was done.
ROUNDS = f"""
import os, pathlib, sys
from fedrec.privacy import ledger_store
from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.ledger import PrivacyLedger

def rounds(folder):
    owner = {{"partner": "shop", "dataset": "sales"}}
    PrivacyLedger.create(folder / "l.sqlite", **owner, budget_epsilon=10.0, budget_delta=1e-5)
    for number in range(2):
        ledger = PrivacyLedger.open(folder / "l.sqlite", **owner)
        ledger.reserve(f"e{{number}}", **{COST!r})
        (folder / "rows").read_bytes()
        (folder / f"read{{number}}").touch()
        ledger.release(f"e{{number}}", "h")
        (folder / f"sent{{number}}").touch()
"""

# strace counts the calls of each process for itself, and kills at the last of so many. So the n-th fork makes all but
# n of them on a scratch file first: it dies at its n-th own call. One import serves all forks.
KILLED = """
root, sync, most = pathlib.Path(sys.argv[1]), getattr(os, sys.argv[2]), int(sys.argv[3])
[epsilon_pld([("head", 1.0, 2.0, n)], 1e-5) for n in (1, 2)]
for own in range(1, most + 1):
    folder = root / str(own)
    folder.mkdir()
    (folder / "rows").touch()
    if os.fork() == 0:
        with open(root / "scratch", "w") as scratch:
            for _ in range(most - own):
                sync(scratch.fileno())
        rounds(folder)
        os._exit(0)
    if os.wait()[1] == 0:
        break  # it ended before its turn to die came
"""


def python(code: str, *arguments: object, strace: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [
        *(["strace", "-f", "--seccomp-bpf", *strace] if strace else []),
        sys.executable,
        "-c",
        code,
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def chain_after_crash(folder: Path) -> Chain | None:
    """The ledger must open, unless it was never made."""
    if not (folder / "l.sqlite").exists():
        PrivacyLedger.create(
            folder / "l.sqlite", partner="shop", dataset="sales", budget_epsilon=10.0, budget_delta=1e-5
        )
        return None
    return PrivacyLedger.open(folder / "l.sqlite", partner="shop", dataset="sales").chain()


@needs_strace
@pytest.mark.parametrize("sync", SYNCS)
def test_sigkill_at_every_sync_loses_nothing(sync: str, tmp_path: Path) -> None:
    """Whatever was read is paid for, and whatever was sent is noted, wherever the process dies."""
    most = 60
    died = python(
        ROUNDS + KILLED, tmp_path, sync, most, strace=["-qq", "-e", f"inject={sync}:signal=SIGKILL:when={most}"]
    )
    assert died.returncode == 0, died.stderr[-2000:]
    folders = sorted((place for place in tmp_path.iterdir() if place.is_dir()), key=lambda place: int(place.name))
    lengths = []
    for folder in folders:
        chain = chain_after_crash(folder)
        paid = set(chain.reserved) if chain else set()
        for number in range(2):
            if (folder / f"read{number}").exists():
                assert f"e{number}" in paid
            if (folder / f"sent{number}").exists():
                assert chain is not None
                assert f"e{number}" in chain.released
        if chain is not None:
            assert chain.spent() == (epsilon_pld([("head", 1.0, 2.0, len(paid))], 1e-5) if paid else 0.0)
        lengths.append(len(chain.records) if chain else 0)
    # The last one ended by itself; those before died at every stage, none later than the one after it. (The first
    # fsync comes after the file has got its name, fdatasyncs come before.)
    assert (folders[-1] / "sent1").exists()
    assert lengths == sorted(lengths)
    assert set(lengths) - {0} == set(range(CREATED_RECORDS, CREATED_RECORDS + 5))
    assert len(folders) < most


# Each way of working in a fork of its own, whose calls strace writes to a file of its own.
TRACED = """
root = pathlib.Path(sys.argv[1])
for name, mutant in zip(sys.argv[2::2], sys.argv[3::2]):
    (root / name).mkdir()
    (root / name / "rows").touch()
    if (child := os.fork()) == 0:
        exec(mutant)
        rounds(root / name)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    (root / f"log.{child}").rename(root / name / "log")
"""
MUTANTS = {
    "right": "",
    "lazy": "ledger_store.SYNCHRONOUS = 'OFF'",
    "careless": "from fedrec import files; files.sync_folder = lambda folder: None",
}


def unsynced_before_rows(folder: Path) -> list[str]:
    """What was written last and not yet synced when the rows were opened, in each of the two rounds."""
    dirty: set[str] = set()
    found = []
    for line in (folder / "log").read_text().splitlines():
        call = re.match(r"(\w+)\(\d+<([^>]+)>", line)
        if line.startswith("openat(") and line.endswith("/rows>"):
            found.append(",".join(sorted(dirty)))
        elif line.startswith("rename(") and ".anchor.new" in line:
            dirty.add("folder")
        elif call and call[1] in SYNCS:
            dirty.discard("folder" if call[2] == str(folder) else call[2])
        elif call and Path(call[2]).name in ("l.sqlite-wal", ".l.sqlite.anchor.new"):
            dirty.add(call[2])
    assert len(found) == 2
    return [line.replace(f"{folder}/", "") for line in found]


@needs_strace
def test_the_reserve_is_on_the_disk_before_rows_are_opened(tmp_path: Path) -> None:
    """Against power loss: log, anchor and the anchor's name are synced. Mutants without a sync are found out."""
    options = [
        "-ff",
        "-y",
        "-qq",
        "-o",
        str(tmp_path / "log"),
        "-e",
        "trace=openat,fsync,fdatasync,pwrite64,write,rename",
    ]
    mutants = [text for pair in MUTANTS.items() for text in pair]
    traced = python(ROUNDS + TRACED, tmp_path, *mutants, strace=options)
    assert traced.returncode == 0, traced.stderr[-2000:]
    assert unsynced_before_rows(tmp_path / "right") == ["", ""]
    assert unsynced_before_rows(tmp_path / "lazy") == ["l.sqlite-wal", "l.sqlite-wal"]
    assert unsynced_before_rows(tmp_path / "careless") == ["folder", "folder"]


RACER = f"""
import functools, pathlib, sys
from fedrec.errors import BudgetError
from fedrec.privacy.ledger import PrivacyLedger

@functools.cache
def ledger(path):
    return PrivacyLedger(pathlib.Path(path), partner="shop", dataset="sales")

print("ready", flush=True)
for line in sys.stdin:
    path, event = line.split()
    try:
        ledger(path).reserve(event, **{COST!r})
        print("won", flush=True)
    except BudgetError:
        print("lost", flush=True)
"""


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """In memory if that can be: who races whom is not about the disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_two_processes_cannot_overspend_in_a_thousand_tries(
    quick_path: Path, make_ledger: Callable[..., PrivacyLedger]
) -> None:
    """They race for the last place; the owner adds one place after each try. Few tries a ledger keep chains short."""
    tries, per_ledger = 1000, 25
    costs = [epsilon_pld([("head", 1.0, 2.0, n)], 1e-5) for n in range(1, per_ledger + 1)]
    wins = {"a": 0, "b": 0}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RACER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as a, subprocess.Popen(command, **pipes) as b:
        racers = {"a": a, "b": b}
        assert [heard(racer.stdout) for racer in racers.values()] == ["ready", "ready"]
        for number in range(tries):
            path, place = quick_path / f"{number // per_ledger}.sqlite", number % per_ledger
            if place == 0:
                ledger = make_ledger(path, costs[0])
            else:
                ledger.set_budget(costs[place], 1e-5)
            for name, racer in racers.items():
                assert racer.stdin is not None
                racer.stdin.write(f"{path} {name}{number}\n")
                racer.stdin.flush()
            outcomes = {name: heard(racer.stdout) for name, racer in racers.items()}
            assert sorted(outcomes.values()) == ["lost", "won"]
            wins[next(name for name, outcome in outcomes.items() if outcome == "won")] += 1
            if place == per_ledger - 1:
                assert ledger.spent()[0] == costs[place]
        a.stdin.close()  # type: ignore[union-attr]
        b.stdin.close()  # type: ignore[union-attr]
    assert sum(wins.values()) == tries
    assert min(wins.values()) > tries / 50  # it was a race


def heard(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline().strip()
