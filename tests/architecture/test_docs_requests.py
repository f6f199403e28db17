"""docs/requests.md tells what `fedrec bench requests-learned` wrote."""

import json
from pathlib import Path

from fedrec_sim.queries.learned_page import table
from fedrec_sim.queries.learning import DIRECTIONS, rounds_of

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_told_of_partners_requests_is_what_was_recorded() -> None:
    text = (ROOT / "docs/requests.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "docs/requests-learned.json").read_text(encoding="utf-8"))
    assert table(found) in text
    assert f"commit {found['commit'][:7]}" in text
    assert "dirty" not in found["commit"]
    assert found["privacy"]["epsilon"] <= 8.0
    assert (found["directions"], found["settings"]["epsilon 8"]) == (DIRECTIONS, repr(rounds_of(8.0)))
    assert f"the {DIRECTIONS} directions" in text
    assert f"with {found['of_the_last_seed']['users']} users who teach" in text
    public, private = (found["rows"][name]["published"] for name in ("public", "epsilon 8"))
    lost = public["seen"]["mean"] - private["seen"]["mean"]
    assert f"Known words of the published test lose {lost:.3f}".replace("0.", ".") in text
    assert private["new"]["mean"] > public["new"]["mean"]


def test_what_is_told_of_one_reading_of_request_and_history_is_what_was_recorded() -> None:
    text = (ROOT / "docs/requests.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "docs/requests-joint.json").read_text(encoding="utf-8"))
    assert f"commit {found['commit'][:7]}" in text
    for name, told in (("words_alone", "words alone"), ("words_and_history", "words and history in one pass")):
        row = found["ndcg_at_10"][name]
        line = next(line for line in text.splitlines() if line.startswith(f"| {told} |"))
        for figure in (row["alone"], row["with_history_model"]):
            shown = f"{figure['mean']:.3f} ± {figure['standard_error']:.3f}"
            assert shown.replace("0.", ".") in line
