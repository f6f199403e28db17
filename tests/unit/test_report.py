"""The report from a made run: whole, escaped, self-contained, the same bytes from the same run."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedrec.errors import ConfigError, RunError
from fedrec_sim.by_users import by_users, publish_by_users
from fedrec_sim.leaderboard import publish
from fedrec_sim.report import render_report, write_report
from fedrec_sim.report_plots import quality_by_epsilon

Json = dict[str, Any]
ROWS = {"popularity": 0.05, "item_knn": 0.11, "local_only": 0.08, "federated": 0.17, "federated_dp": 0.12}
PARTS = ["prior"] + ["head"] * 5 + ["lora"] * 3
PART = {"sampling_prob": 1.0, "l2_clip_norm": 0.3, "noise_multiplier": 4.2}
FILMS = [{"title": f"Film {n} & more", "score": 3.2 - n, "reason": "because of Heat"} for n in range(5)]
N_ITEMS = 200
VOID = {"meta", "br", "path", "use", "rect", "link"}


def row_figures(name: str, level: float, seeds: list[int]) -> Json:
    per_seed = [{"seed": seed, "hr@10": level + 0.004 * seed, "ndcg@10": level / 2 + 0.002 * seed} for seed in seeds]
    means = {metric: float(np.mean([seed[metric] for seed in per_seed])) for metric in ("hr@10", "ndcg@10")}
    federated = name.startswith("federated")
    return {
        **means,
        "hr@5": level / 1.5,
        "mrr@10": level / 3,
        "coverage@10": 0.3,
        "novelty@10": 9.1,
        "hr@10_std": 0.0051,
        "ndcg@10_std": 0.0023,
        "seeds": len(seeds),
        "epsilon": 7.994 if name == "federated_dp" else None,
        "bytes_up_per_partner": 131_072 if federated else None,
        "seconds": 83.0 if federated else 0.4,
        "per_seed": per_seed,
    }


def made_summary(seeds: list[int]) -> Json:
    shares = 1 / np.arange(1, N_ITEMS + 1)
    sharp = {name: shares ** (1 + 4 * (0.2 - level)) for name, level in ROWS.items()}
    return {
        "format": 1,
        "name": "demo",
        "protocol": "B",
        "command": "fedrec demo --set 'name=\"<demo>\"'",
        "commit": "0123456789ab",
        "created_at": "2026-01-02T03:04:05+00:00",
        "seeds": seeds,
        "seconds": 417.2,
        "peak_rss_bytes": 1_900_000_000,
        "versions": {"fedrec": "0.1.0", "torch": "2.13.0", "numpy": "2.4.1"},
        "data": {"name": "ml-100k", "hash": "da7a", "users": 943, "items": N_ITEMS, "interactions": 100_000},
        "model": {
            "name": "smollm2-135m",
            "hash": "40de1",
            "layers": 2,
            "parameters_trained": {"plain": {"lora": 123_456}, "private": {"head": 4_096}},
        },
        "privacy": {
            "unit": "user",
            "mode": "secagg",
            "epsilon": 7.994,
            "delta": 1e-4,
            "assumption": "all 8 partners add their share of the noise",
            "partner_alone_epsilon": 31.5,
            "noise_source": "seeded",
            "covers": "one user at one partner",
            "does_not_cover": ["other runs", "timing"],
            "false_alarm_rate": 0.01,
            "found_rate_at_most": 0.2534,
            "parts": [PART | {"part": part, "steps": PARTS.count(part)} for part in ("prior", "head", "lora")],
        },
        "rows": {name: row_figures(name, level, seeds) for name, level in ROWS.items()},
        "recommendations": [
            {"user": user, "watched": ["Toy Story (1995)", "<b>Heat</b> (1995)"], "recommended": FILMS}
            for user in ("42", "7", "900")
        ],
        "popularity_curve": {
            "catalog": (shares / shares.sum()).tolist(),
            "rows": {name: (row / row.sum()).tolist() for name, row in sharp.items()},
        },
    }


def made_events(seeds: list[int]) -> list[Json]:
    events: list[Json] = [{"event": "run_started"}]
    for row in ("federated", "federated_dp"):
        for seed in seeds:
            events.append({"event": "row_started", "row": row, "seed": seed})
            events += [committed(row, seed, number) for number in range(1, len(PARTS) + 1)]
    refused = {
        "event": "partner_refused",
        "row": "federated_dp",
        "seed": 1,
        "round": 4,
        "partner": "partner-3",
    }
    return [*events, {**refused, "reason": "answer is not finite: <script>alert(1)</script>"}]


def committed(row: str, seed: int, number: int) -> Json:
    private = row == "federated_dp"
    part = PARTS[number - 1]
    quality = ROWS[row] * (1 - 0.6**number) + 0.003 * seed
    return {
        "event": "round_committed",
        "row": row,
        "seed": seed,
        "round": number,
        "part": part if private else "all",
        "attempt": 1,
        "partners": ["partner-1", "partner-2"] if private else 8,
        "seconds": 2.5,
        "bytes_up": {"prior": 53_824, "head": 131_072, "lora": 40_960}[part] if private else 48_000_000,
        "bytes_down": 2_100_000 if private else 50_000_000,
        "epsilon": 7.994 * (number / len(PARTS)) ** 0.5 if private else None,
        "validation": {"hr@10": quality, "ndcg@10": quality / 2, "users": 200} if number % 2 else None,
    }


def make_run(folder: Path, seeds: list[int]) -> Path:
    (folder / "summary.json").write_text(json.dumps(made_summary(seeds)), encoding="utf-8")
    lines = [json.dumps(event) for event in made_events(seeds)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page_of_one_seed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(make_run(tmp_path_factory.mktemp("run"), [1])).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(make_run(tmp_path_factory.mktemp("run"), [1, 2, 3])).read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Open tags, ids, headings and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_page_is_whole_and_accessible(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in outline.tags if tag == "th")
    images = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(images) == 8
    assert all(image["role"] == "img" and len(image["aria-label"] or "") > 30 for image in images)
    assert page.count("<figcaption>") == len(images)
    targets = {attributes["href"] for tag, attributes in outline.tags if tag == "a"}
    assert {f"#{name}" for name in ids} >= targets


def test_page_needs_nothing_else(page: str) -> None:
    assert not re.search(r"https?:|//|@import|<script|<link|<img|\bsrc=", page)
    assert "prefers-color-scheme: dark" in page
    assert "default-src 'none'" in page
    loose = set(re.findall(r"url\((?!#)|href=\"(?!#)", page))
    assert not loose


def test_every_reference_inside_a_plot_has_its_target(page: str) -> None:
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert used <= set(re.findall(r'\bid="([^"]+)"', page))


def test_what_comes_from_outside_is_escaped(page: str) -> None:
    for hostile in ("<script>", "<b>Heat</b>", "<demo>"):
        assert hostile not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;Heat&lt;/b&gt;" in page


def test_figures_of_the_run_are_told(page: str) -> None:
    for text in (
        "0.1280 ± 0.0051",  # mean over the seeds, with spread
        "12.8%",
        "e<sup>epsilon</sup> = 2,963",
        "epsilon\n31.50",
        "all 8 partners add their share of the noise",
        "131 kB",
        "partner-3",
        "Not covered: other runs; timing.",
        "<strong>25.3 of 100</strong>",
        "protects nobody in earnest",
        "made with one seed",
        "leave-one-out by time",
        "private head 4,096",
        "0123456789ab",
        "torch 2.13.0",
        "head from round 2, lora from round 7",
        "on a fixed sample of 200 users",
        "federated_dp: 0.054 in round 1, 0.125 in round 9",  # mean over the seeds
        "federated_dp: 2.66 in round 1, 7.99 in round 9",
    ):
        assert text in page, text


def test_one_seed_shows_no_spread(page_of_one_seed: str) -> None:
    assert "one seed, so no spread is known" in page_of_one_seed
    assert not re.search("±|bands|Whisker", page_of_one_seed)


def test_same_run_gives_the_same_bytes(tmp_path: Path, page: str) -> None:
    again = write_report(make_run(tmp_path, [1, 2, 3]))
    assert again.read_text(encoding="utf-8") == page
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "events.jsonl", "report.html"}


def test_run_without_federated_row(tmp_path: Path) -> None:
    summary = made_summary([1])
    summary["rows"] = {"popularity": summary["rows"]["popularity"]}
    summary["privacy"] = {
        "unit": "user",
        "mode": "none",
        "epsilon": None,
        "delta": None,
        "assumption": "none",
    }
    del summary["recommendations"], summary["popularity_curve"], summary["peak_rss_bytes"]
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for text in (
        "No row of this run was federated",
        "nothing is promised",
        "handed on no adapter",
        "None: every partner",
    ):
        assert text in page
    assert page.count("<svg") == 2


def test_a_line_cut_off_by_a_crash_is_counted(tmp_path: Path) -> None:
    with (make_run(tmp_path, [1]) / "events.jsonl").open("a") as file:
        file.write('{"event": "round_comm')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "1 line of events.jsonl could not be read" in page
    assert page.count("<svg") == 8


def test_a_round_told_twice_counts_once(page_of_one_seed: str) -> None:
    events = made_events([1])
    assert render_report(made_summary([1]), [*events[:-1], *events]) == page_of_one_seed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2, this fedrec reads 1"),
        ({"rows": {}}, "rows: empty"),
        ({"privacy": None}, "privacy: missing"),
    ],
)
def test_summary_that_cannot_be_read_is_refused(tmp_path: Path, change: Json, words: str) -> None:
    summary = {**made_summary([1]), **change}
    kept = {key: value for key, value in summary.items() if value is not None}
    (tmp_path / "summary.json").write_text(json.dumps(kept), encoding="utf-8")
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    with pytest.raises(RunError, match=words):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "old"


def test_missing_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"summary\.json: missing"):
        write_report(tmp_path)


def publishable(name: str, seeds: list[int]) -> Json:
    summary = made_summary(seeds)
    config = {"jobs": 1, "model": {"threads": 2, "public_data": "movielens-small"}}
    return {**summary, "name": name, "which": "test", "config": config, "popularity_curve": {"catalog": [1.0]}}


def test_a_published_run_takes_the_place_of_its_older_section_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "LEADERBOARD.md"
    page.write_text("# Leaderboard\n\nRead this first.\n", encoding="utf-8")
    for name, seeds in (("small", [1]), ("large", [1, 2]), ("small", [1, 2, 3])):
        figures, _ = publish(publishable(name, seeds), tmp_path)
        assert json.loads(figures.read_text(encoding="utf-8"))["seeds"] == seeds
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Leaderboard\n\nRead this first.\n\n## small\n\n| row |")
    assert re.findall(r"^## (.*)", text, flags=re.M) == ["small", "large"]
    assert text.count("seeds [1, 2, 3]") == text.count("seeds [1, 2],") == 1
    assert "start from public data, movielens-small" in text
    assert "popularity_curve" not in (tmp_path / "small.json").read_text(encoding="utf-8")


def test_rows_with_several_epsilons_are_drawn_over_them(tmp_path: Path) -> None:
    summary = publishable("curve", [1, 2, 3])
    levels = {"federated_eps1_secagg": 0.10, "federated_eps8_secagg": 0.14, "federated_eps8_inspect": 0.12}
    summary["rows"] |= {name: {**row_figures(name, level, [1, 2, 3]), "epsilon": 1} for name, level in levels.items()}
    _, page = publish(summary, tmp_path)
    assert "(curve-epsilon.svg)" in page.read_text(encoding="utf-8")
    drawn = (tmp_path / "curve-epsilon.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<svg xmlns=")
    assert "secagg: 0.0540 at 1, 0.0740 at 8; inspect: 0.0640 at 8" in drawn
    assert not list(quality_by_epsilon(publishable("curve", [1])))


def of_users(users: int, generated: str | None = None) -> Json:
    summary = publishable("any", [1, 2])
    chosen = {name: {**row, "chosen_on_validation": [None]} for name, row in summary["rows"].items()}
    name = f"ml-100k ({generated})" if generated else "ml-100k"
    data = {**summary["data"], "users": users, "generated": generated, "name": name}
    return {**summary, "rows": chosen, "data": data, "partners": 8}


def test_runs_with_different_numbers_of_users_stand_side_by_side(tmp_path: Path) -> None:
    runs = [of_users(943), of_users(118), of_users(10_000, "generated users")]
    assert [size["users"] for size in by_users(runs)["sizes"]] == [118, 943, 10_000]
    figures, page = publish_by_users(runs, tmp_path, "users")
    assert json.loads(figures.read_text(encoding="utf-8"))["sizes"][0]["rows"]["federated_dp"]["epsilon"] == 7.994
    text = page.read_text(encoding="utf-8")
    assert "| 10,000 | ml-100k (generated users) | federated_dp |" in text
    assert "federated_dp, generated: 0.0630 with 10,000" in (tmp_path / "users.svg").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="as many users"):
        by_users([of_users(943), of_users(943)])
    with pytest.raises(ConfigError, match="differ in protocol"):
        by_users([of_users(943), {**of_users(118), "protocol": "D"}])
