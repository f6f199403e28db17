"""Figures that the documentation tells of services, examples and tasks are those that a command wrote."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedrec.safety.screen import LIKE
from fedrec_sim.tasks.bench import GENRE, ROWS

ROOT = Path(__file__).resolve().parents[2]


def figures_of(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))
    return figures


def test_what_is_told_of_rehearsals_is_what_was_recorded() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    quiet, faulty = figures_of("rehearsal.json"), figures_of("rehearsal-faults.json")
    assert f"took {quiet['overhead_s_per_round']:.2f} s each besides training" in text
    assert f"three rounds took {len(faulty['attempts'])} attempts" in text
    for found in (quiet, faulty, quiet["training"]):
        assert all(found["checks"].values())


def test_what_is_told_of_a_head_that_nodes_trained_is_what_was_recorded() -> None:
    text, found = (ROOT / "docs/tasks.md").read_text(encoding="utf-8"), figures_of("rehearsal-task.json")
    assert all(found["checks"].values())
    assert f"commit {found['commit']}, one seed" in text
    figures, simulated = found["figures"], found["simulated"]
    assert f"RMSE {figures['rmse']:.4f} and MAE {figures['mae']:.4f} over all held-back ratings" in text
    assert f"in the same run: RMSE {simulated['rmse']:.4f}" in text
    (spent,) = set(found["epsilon_spent"].values())
    assert f"{spent:.2f} of epsilon spent by every ledger" in text
    assert f"is {figures_of('tasks.json')['D_rmse_eps8']:.4f}. A round took {found['s_per_round']:.1f} s" in text


def test_what_is_told_of_partners_that_serve_while_they_train_is_what_was_recorded() -> None:
    text, found = (ROOT / "docs/operations.md").read_text(encoding="utf-8"), figures_of("rehearsal-serving.json")
    assert all(found["checks"].values())
    assert f"{max(found['wish_to_round_s']):.1f} s after their wish at most" in text
    lists = found["lists"]
    assert f"{lists['answered']:,} lists" in text
    assert f"half within {lists['p50_ms']:.0f} ms and 99 of 100 within {lists['p99_ms']:.0f} ms" in text
    assert f"of {found['events_acknowledged']} events that services had acknowledged none was lost" in text


def test_what_is_told_of_serving_is_what_was_recorded() -> None:
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    bench, scale, soak = (figures_of(f"serve-{name}.json") for name in ("bench", "scale", "soak"))
    assert bench["errors"] == scale["errors"] == soak["lost"] == soak["failed_swaps"] == 0
    assert (bench["reflected"], bench["reflection"]["tries"], soak["faults"]) == (1.0, 1000, {})
    told = f"half of the answers within {bench['p50_ms']:.1f} ms and 99 of 100 within {bench['p99_ms']:.0f} ms"
    assert f"{told}; {bench['recommendations_per_s']:.0f} lists a second" in text
    assert f"{bench['sasrec_forward_ms'][1]:.1f} ms" in text
    assert f"{scale['p50_ms']:.0f} ms and {scale['p99_ms']:.0f} ms" in text
    assert f"{scale['index_recall']:.4f} of the exact ten in {scale['index_ms']:.1f} ms" in text
    assert f"Scoring all takes {scale['exact_ms']:.1f} ms" in text
    assert f"starts in {scale['start_s']:.0f} s" in text
    assert f"of {soak['acknowledged']:,} acknowledged events none was lost" in text
    assert f"{soak['swaps']} adapters took over" in text


def test_what_is_told_of_fairness_is_what_was_recorded() -> None:
    text, found = (ROOT / "docs/fairness.md").read_text(encoding="utf-8"), figures_of("fairness.json")
    before = found["before"]
    for one in found["floors"]:
        tail, spread = one["exposure"]["popularity"]["tail"], one.get("over_seeds")
        told = f"{tail:.3f} | {one['hr@10']:.4f} | {one['ndcg@10']:.4f}"
        if spread:
            figures = [f"{spread[name]['mean']:.4f} ± {spread[name]['std']:.4f}" for name in ("hr@10", "ndcg@10")]
            told = f"{spread['tail']['mean']:.3f} | {' | '.join(figures)}"
        assert f"| {one['tail_share']:g} | {one['way']} | {told} |" in text
    assert f"| none | - | {before['exposure']['popularity']['tail']:.3f} | {before['hr@10']:.4f} | " in text
    for name, division in before["quality_by_group"].items():
        for group, figures in division["groups"].items():
            assert f"| {name} | {group} | {figures['people']} | {figures['mean']:.3f} |" in text
    for row in found["released"]["epsilons"]:
        for who in ("one_partner", "8_partners"):
            wrong, division = row[who]["errors"], row[who]["quality_by_group"]["gender"]
            told = f"{division['threshold']:.0f} people | {wrong['groups_shown']:.1f} of {wrong['groups']:.0f}"
            assert f"{told} | {wrong['share']:.3f} | {wrong['quality']:.3f} |" in text
            assert row[who]["epsilon_charged"] <= row["epsilon"]
    screen = found["screening"]
    assert screen["threshold"] == screen["chosen"] == LIKE
    assert f"{screen['test']['precision']:.2f} of what it finds" in text
    assert screen["test"]["recall"] == 1.0
    assert f"{screen['catalogue']['flagged']} would wait" in text


def test_what_is_told_of_a_load_is_what_was_recorded() -> None:
    text, load = (ROOT / "docs/operations.md").read_text(encoding="utf-8"), figures_of("network-load.json")
    assert f"On {load['cores']} cores" in text
    for size in load["sizes"]:
        assert size["exact"]
        counts = f"{size['median_s']:.0f} | {sum(size['lost'].values())} | {size['calls_per_partner']:.1f}"
        wire = f"{size['wire_bytes_up'] / 1e3:.0f} | {size['wire_bytes_down'] / 1e3:.0f}"
        costs = [
            f"{size['peak_rss_bytes'][name] / 1e6:.0f} MB, {size['cpu_s_per_round'][name]:.0f} s"
            for name in ("superlink", "gateway", "driver")
        ]
        assert f"| {size['partners']:,} | {counts} | {wire} | {' | '.join(costs)} |" in text, size["partners"]


def test_what_is_told_of_requests_in_words_is_what_was_recorded() -> None:
    text, found = (ROOT / "docs/requests.md").read_text(encoding="utf-8"), figures_of("requests.json")
    rows = [found["searches"][name] for name in ("reader", "encoder", "bm25")]
    told = [value for row in rows for value in (row["precision_at_10"], *row["by_words"].values())]
    told += [row["mean"] for name, row in found["personal"]["ndcg_at_10"].items() if name != "popular"]
    told += [found["searches"]["reader"]["by_kind"][kind] for kind in ("one", "one_not", "decade", "like", "like_and")]
    for value in (*told, found["chinese"]["precision_at_10"]):
        assert f"{value:.3f}".lstrip("0") in text, value
    assert found["personal_ndcg_at_10"] > found["request_ndcg_at_10"]


@pytest.mark.parametrize("name", ["support", "sentiment"])
def test_the_tables_of_the_examples_of_texts_are_what_the_command_wrote(name: str) -> None:
    from fedrec_sim.example_page import markdown
    from fedrec_sim.sentiment import page as of_sentiment
    from fedrec_sim.support import page as of_support

    text, found = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8"), figures_of(f"{name}.json")
    shown = of_support if name == "support" else of_sentiment
    assert f"<!-- {name}: begin -->\n{markdown(shown.HEAD, shown.table(found))}<!-- {name}: end -->" in text
    assert found["commit"][:7] in text


def test_the_figures_of_pictures_are_what_the_command_wrote() -> None:
    text, found = (ROOT / "docs/images.md").read_text(encoding="utf-8"), figures_of("images.json")
    assert f"commit {found['commit'][:7]}" in text
    assert f"{found['n_users']:,} made users" in text
    config = tomllib.loads((ROOT / "simulations/configs/stamps.toml").read_text(encoding="utf-8"))
    assert config["data"]["users"] == found["n_users"]
    for kind in ("no noise", "epsilon 8"):
        for figures in found["ways"][kind].values():
            assert f"{figures['ndcg@10']:.4f} ± {figures['ndcg@10_std']:.4f} | {figures['hr@10']:.4f} |" in text
        for loss in found["checks"][kind]["loss"].values():
            assert f"{loss:.1%}" in text


def test_the_figures_of_task_heads_are_what_the_command_wrote() -> None:
    text, found = (ROOT / "docs/tasks.md").read_text(encoding="utf-8"), figures_of("tasks.json")
    assert f"commit {found['commit'][:7]}" in text
    for key, figure in [
        *((key, figure) for key, (_, figure) in ROWS.items()),
        (GENRE, "log_loss"),
        (GENRE, "accuracy"),
    ]:
        shown = []
        for name in (key, f"{key}_eps8"):
            told = found["rows"].get(name, {"figures": {}})["figures"].get(figure)
            shown.append(f"{told['mean']:.4f} ± {told['std']:.4f}" if told else "-")
        said = f"`{key}`" if figure != "accuracy" else "its accuracy"
        assert f"| {said} | {shown[0]} | {shown[1]} |" in text, key
    for key, floors in found["floors"].items():
        for name, figures in floors.items():
            assert f"| `{key}` | {name} | {figures[key.partition('_')[2]]:.4f} |" in text, (key, name)
