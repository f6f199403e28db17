"""What docs/peft.md tells of methods is what docs/peft.json recorded."""

import json
from pathlib import Path
from typing import Any, get_args

from fedrec.sections.training import MethodName

ROOT = Path(__file__).resolve().parents[2]


def row(way: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [way]
    for kind in ("plain", "private"):
        if figures := found[kind]:
            quality, gains = figures["ndcg@10"], figures["gain_by_seed"]
            told = f"{figures['hr@10']['mean']:.4f} | {quality['mean']:.4f} ± {quality['std']:.4f}"
            cells.append(f"{told} | {', '.join(f'{gain:+.4f}' for gain in gains)}")
        else:
            cells.append("- | - | refused")
    return f"| {' | '.join(cells)} |"


def cost(way: str, found: dict[str, Any]) -> str:
    """A line of the other table."""
    cells = [way]
    for kind in ("plain", "private"):
        figures, seconds = found[kind], found.get("step_s", {}).get(kind)
        numbers = f"{figures['trained_numbers']:,} | {figures['bytes_up_per_round'] / 1e3:,.1f}" if figures else "- | -"
        cells.append(f"{numbers} | {'-' if seconds is None else f'{seconds:.2f}'}")
    return f"| {' | '.join(cells)} |"


def test_what_is_told_of_methods_is_what_was_recorded() -> None:
    text = (ROOT / "docs/peft.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "docs/peft.json").read_text(encoding="utf-8"))
    assert not found["commit"].endswith("-dirty")
    assert found["ways"].keys() == {"head", *get_args(MethodName)}
    for way, figures in found["ways"].items():
        assert row(way, figures) in text
        assert cost(way, figures) in text
    assert f"seeds {', '.join(map(str, found['seeds']))}" in text
    assert f"commit {found['commit']}" in text
    assert f"`{found['command']}`" in text
    assert found["rates_chosen_on"] == f"validation NDCG@10 of seed {found['seeds'][0]}"
    assert 7.9 < found["epsilon"] <= 8.0


def test_every_method_is_explained() -> None:
    text = (ROOT / "docs/peft.md").read_text(encoding="utf-8")
    assert [method for method in get_args(MethodName) if f"| `{method}` |" not in text] == []
