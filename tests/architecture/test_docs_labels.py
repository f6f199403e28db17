"""docs/labels.md tells what `fedrec bench labels` wrote."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedrec.active.questions import BEST, STRATEGIES
from fedrec_sim.labels.page import TABLES, section
from fedrec_sim.labels.pseudo import CHOSEN
from fedrec_sim.labels.start import ROUNDS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/labels.md").read_text(encoding="utf-8")


def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs/labels.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("part", figures())
def test_the_tables_are_what_the_command_wrote(part: str) -> None:
    found = figures()[part]
    assert part in TABLES
    assert section(part, found) in TEXT
    assert found["commit"][:7] in TEXT
    assert "dirty" not in found["commit"]


def test_every_way_to_ask_is_explained() -> None:
    for name in STRATEGIES:
        assert re.search(rf"^\| `{name}` \| [a-z`]", TEXT, flags=re.M), name
    assert re.search(rf"^\| `{BEST}` \| .*what the service asks by", TEXT, flags=re.M)
    assert figures()["active"]["served"] == BEST


def test_settings_are_those_that_were_measured() -> None:
    found = figures()
    assert (found["pseudo"]["threshold"], found["pseudo"]["weight"]) == (CHOSEN.threshold, CHOSEN.weight)
    assert f"says {CHOSEN.threshold} or more of one answer" in TEXT
    assert f"count {CHOSEN.weight} of a row" in TEXT
    assert found.get("start", {"rounds": ROUNDS})["rounds"] == ROUNDS
    assert TEXT.count(f"{ROUNDS} private rounds") == 2
