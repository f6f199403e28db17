"""docs/serving.md is run: every curl line, against a service of MovieLens-100K, answers as stands below it.

Names, types and lengths of lists are compared, and every value that cannot vary.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fedrec.config import load_config
from fedrec.data.sources import cache_dir, fetch
from fedrec.model.sentences import SentenceEncoder
from fedrec.recommend.live_model import LiveModel
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import default_settings
from fedrec_sim.rehearsal.shop import pages_served
from fedrec_sim.world import World, load_world

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/serving.md"
FETCHED = all((cache_dir() / name).is_dir() for name in ("ml-100k", "movielens-small", "smollm2-135m", "minilm-l6-v2"))
LINES = re.findall(r"^\$ (curl .+)\n(.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
USERS = ("42", "43", "44")
# Of these the form is compared alone: they hang on adapter, people and clock.
VARIES = {
    "ranking",
    "cursor",
    "adapter",
    "request",
    "title",
    "id",
    "item",
    "sentence",
    "categories",
    "words",
    "because",
    "took_ms",
    "score",
    "gain",
    "events",
    "removed",
    "score_without",
    "holds",
    "Score",
    "Id",
    "value",
    "took",
    "ids",
    "tookMillis",
    "scores",
    "count",
    "users_in_memory",
    "readings_kept",
    "items",
    "source",
    "rules",
    "waiting",
    "at",
    "decided_at",
    "hash",
    "head",
}


def histories(world: World) -> Iterator[Event]:
    table = next(iter(world.table.tables()))
    for user, item, moment in zip(table.user_codes, table.item_codes, table.timestamp, strict=True):
        if table.user_ids[user] in USERS:
            yield Event("rating", table.item_ids[item], user=table.user_ids[user], timestamp=float(moment))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    world = load_world(load_config(ROOT / "simulations/configs/demo.toml"))
    settings = default_settings()
    model = LiveModel(world.model(world.config.private.shape, 1), "round-0000", 50, settings.model.new_item_boost)
    sentences, later = SentenceEncoder(fetch("minilm-l6-v2")), world.shared.later_items(world.catalog)
    served = Served(world.catalog, model, later, world.features.hash, None, sentences)

    def seed(service: Service) -> None:
        service.store.of("default").events.add(list(islice(histories(world), 10_000)))

    with pages_served(tmp_path_factory.mktemp("doc"), served, settings, Outside(), seed) as found:
        yield found


@pytest.mark.real
@pytest.mark.timeout(240)
@pytest.mark.skipif(not FETCHED, reason="run `make setup` first: it fetches data and models")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_line_answers_as_it_says(address: str) -> None:
    assert len(LINES) >= 25
    for line, documented in LINES:
        command = line.replace("localhost:8088", address.removeprefix("http://"))
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        problems = list(differences(json.loads(documented), json.loads(done.stdout), "answer", ""))
        assert not problems, f"{line}\n{problems}\n{done.stdout}"


def differences(documented: Any, found: Any, place: str, name: str) -> Iterator[str]:
    """Where an answer is not as documented."""
    if isinstance(documented, dict) and isinstance(found, dict):
        if set(documented) != set(found):
            yield f"{place}: {sorted(set(documented) ^ set(found))}"
        for key in set(documented) & set(found):
            yield from differences(documented[key], found[key], f"{place}.{key}", key)
    elif isinstance(documented, list) and isinstance(found, list):
        if bool(documented) != bool(found) and name not in VARIES:
            yield f"{place}: {len(documented)} or {len(found)} of them"
        for one, other in zip(documented, found, strict=False):
            yield from differences(one, other, place, name or "item")
    elif type(documented) is not type(found) and not {type(documented), type(found)} <= {int, float}:
        yield f"{place}: {type(found).__name__}"
    elif documented != found and name not in VARIES:
        yield f"{place}: {found!r}"


def test_a_difference_is_found() -> None:
    assert list(differences({"a": 1, "items": [{"b": "x"}]}, {"a": 2, "items": [{"c": "x"}]}, "", ""))
    assert not list(differences({"score": 1.5, "ids": ["a"]}, {"score": 2, "ids": ["b", "c"]}, "", ""))
