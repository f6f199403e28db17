"""The serving store against SIGKILL at any moment: an event that was acknowledged is there afterwards."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedrec_client.serving.records import Event
from fedrec_client.serving.store.store import ServingStore, store_url

# Eight callers, each of whom says the id of an event once its future is done. A line is one write: it is whole or not.
WRITES = """
import os, sys, threading
from fedrec_client.serving.records import Event
from fedrec_client.serving.store.store import ServingStore

store = ServingStore.open(sys.argv[1])
writer = store.writer()

def call(caller):
    for number in range(10**6):
        name = f"{sys.argv[2]}-{caller}-{number}"
        event = Event("click", "item", user=f"u{caller}", timestamp=float(number), id=name)
        writer.add_events("shop", [event], "add" if caller else "set").result()
        os.write(1, f"{name}\\n".encode())

threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
for thread in threads:
    thread.start()
"""
RUNS = 4


def acknowledged(url: str, run: int, after_s: float, folder: Path) -> list[str]:
    """Ids that a process said before it was killed, so long after the first."""
    said = folder / f"said-{run}"
    with said.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", WRITES, url, str(run)], stdout=out)
    try:
        until = time.monotonic() + 60
        while not said.stat().st_size and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(after_s)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    return said.read_text().split()


def test_sigkill_loses_no_event_that_was_acknowledged(tmp_path: Path) -> None:
    url, rng, said = store_url(tmp_path, "sqlite"), random.Random(8), list[str]()
    for run in range(RUNS):
        said += acknowledged(url, run, rng.uniform(0, 0.3), tmp_path)
        store = ServingStore.open(url)
        there = {one.event.id for one in store.of("shop").log.since(0, 10**6)}
        # Caller 0 sets: of its events only the latest is kept, which is the last it said or the one after.
        lost = [name for name in said if name.split("-")[1] != "0" and name not in there]
        assert not lost
        kept = [name for name in there if name.split("-")[1] == "0"]
        assert len(kept) <= 1
        for latest in [name for name in said if name.startswith(f"{run}-0-")][-1:]:
            assert kept[0].startswith(f"{run}-0-")
            assert int(kept[0].split("-")[2]) >= int(latest.split("-")[2])
        store.close()
    assert len(said) > 10 * RUNS


@pytest.mark.parametrize("table", ["items", "events", "keys"])
def test_a_migration_that_dies_half_way_leaves_nothing_half(tmp_path: Path, table: str) -> None:
    url = store_url(tmp_path, "sqlite")
    dies = f"""
import os, signal, sys
from alembic import op
from fedrec_client.serving.store.store import ServingStore
make = op.create_table
def create_table(name, *columns, **more):
    make(name, *columns, **more)
    if name == {table!r}:
        os.kill(os.getpid(), signal.SIGKILL)
op.create_table = create_table
ServingStore.open(sys.argv[1])
"""
    assert subprocess.run([sys.executable, "-c", dies, url], check=False).returncode == -signal.SIGKILL
    store = ServingStore.open(url)
    assert store.of("shop").events.add([Event("click", "i", user="u")]).accepted == 1
    store.close()
