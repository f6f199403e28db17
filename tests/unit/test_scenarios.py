"""Scenarios: weights decide what is positive, rules act in lists, figures are what a slow reading gives."""

import json
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedrec.config import ScenarioConfig, SimulationConfig, load_config, parse_config
from fedrec.data.bandit_scene import bandit_scene
from fedrec.data.catalog import ItemCatalog
from fedrec.data.events import EventLog, positives
from fedrec.data.made_music import SERVICES, music_scene
from fedrec.data.made_social import social_scene
from fedrec.data.open_bandit import CAMPAIGNS, BanditLog
from fedrec.data.partition import deal_by_label
from fedrec.data.scene import LoggedShows, Scene
from fedrec.errors import ConfigError, DataError
from fedrec_sim.cli import app
from fedrec_sim.cli_output import CONFIGS
from fedrec_sim.report import render_report
from fedrec_sim.scenarios.figures import Answers, figures_of, policy_value
from fedrec_sim.scenarios.lists import Lister, Questions, in_nats
from fedrec_sim.scenarios.measure import changes
from fedrec_sim.scenarios.page import BEGIN, END, NAMES, publish, section
from fedrec_sim.scenarios.summary import over_seeds
from fedrec_sim.scenarios.words import rule_words
from tests.unit.test_report import made_summary

KINDS = ("view", "cart", "purchase", "hide")
WEIGHTS = {"view": 1.0, "cart": 3.0, "purchase": 5.0, "hide": -2.0}
ITEMS = ("a", "b", "c")
Rows = list[tuple[str, int, str, float]]
rows_of = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "u3"]), st.integers(0, 2), st.sampled_from(KINDS), st.integers(0, 9).map(float)
    ),
    min_size=1,
    max_size=25,
)


def slowly_positive(rows: Rows, weights: dict[str, float], positive_from: float) -> dict[tuple[str, str], Any]:
    """Pair by pair: the strongest event, less what the most negative takes."""
    events = defaultdict(list)
    for user, item, kind, at in rows:
        events[user, ITEMS[item]].append((weights[kind], at))
    found = {}
    for pair, own in events.items():
        strongest = max(weight for weight, _ in own)
        strength = max(0.0, strongest) + min(0.0, min(weight for weight, _ in own))
        if strength >= positive_from:
            found[pair] = (strength, min(at for weight, at in own if weight == strongest))
    return found


@given(rows_of, st.sampled_from([1.0, 2.0, 3.0, 4.5]))
def test_what_is_positive_is_what_reading_pair_by_pair_gives(rows: Rows, positive_from: float) -> None:
    expected = slowly_positive(rows, WEIGHTS, positive_from)
    log = EventLog.of(rows, ITEMS, KINDS)
    if not expected:
        with pytest.raises(DataError, match="no pair"):
            positives(log, WEIGHTS, positive_from)
        return
    table = positives(log, WEIGHTS, positive_from)
    columns = zip(table.user_codes, table.item_codes, table.rating, table.timestamp, strict=True)
    assert {(table.user_ids[u], ITEMS[i]): (float(r), float(t)) for u, i, r, t in columns} == expected
    backwards = positives(EventLog.of(rows[::-1], ITEMS, KINDS), WEIGHTS, positive_from)
    assert backwards.hash == table.hash


def test_one_user_more_changes_nobody_elses_positives() -> None:
    rows: Rows = [("u1", 0, "view", 1.0), ("u1", 1, "purchase", 2.0), ("u3", 0, "cart", 1.0)]
    alone = positives(EventLog.of(rows, ITEMS, KINDS), WEIGHTS, 1.0)
    more = positives(EventLog.of([*rows, ("u2", 0, "purchase", 0.0)], ITEMS, KINDS), WEIGHTS, 1.0)
    own = [more.user_ids[user] != "u2" for user in more.user_codes]
    assert more.rating[own].tolist() == alone.rating.tolist()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"view": 1.0}, "no weight"),
        (WEIGHTS | {"gift": 1.0}, "no events 'gift'"),
        (WEIGHTS | {"view": float("nan")}, "not finite"),
    ],
)
def test_weights_that_do_not_fit_the_data_are_named(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        positives(EventLog.of([("u", 0, "view", 0.0)], ITEMS, KINDS), weights, 1.0)


def changed(name: str, **scenario: object) -> SimulationConfig:
    values = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))
    values["scenario"].update(scenario)
    return parse_config(values, "made")


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ({"shares": [0.5, 0.4]}, "add up to 0.9"),
        ({"shares": [0.5, 0.5]}, "2 shares for 5 partners"),
        ({"provider": "studio"}, "none of fields"),
        ({"metrics": ["familiar"]}, "want a provider"),
        ({"positive_from": 9.0}, "no event reaches"),
        (
            {"rules": [{"name": "cheap", "action": "boost", "amount": 1.0, "where": "item.price < 3.0"}]},
            "'price' is none",
        ),
        ({"rules": [{"name": "odd", "action": "pin", "category": "x"}]}, "pin wants"),
        ({"rules": [{"name": "odd", "action": "exclude", "where": "item.year < < 3"}]}, "not CEL"),
    ],
)
def test_a_scenario_that_does_not_fit_together_is_refused(scenario: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        changed("video", **scenario)


def test_rows_and_protocols_without_one_list_a_user_are_refused() -> None:
    for override in ('rows=["local_only"]', 'evaluation.protocol="A"'):
        with pytest.raises(ConfigError, match="scenario's lists"):
            load_config(CONFIGS / "video.toml", (override,))


def test_a_run_keeps_its_scenario() -> None:
    for name in NAMES:
        config = load_config(CONFIGS / f"{name}.toml")
        assert parse_config(config.model_dump(mode="json"), "run.json") == config


def test_users_are_dealt_in_the_order_of_their_labels() -> None:
    dealt = deal_by_label([40.0, 10.0, 30.0, 20.0, 50.0], (0.4, 0.6), 2, seed=1)
    assert [users.tolist() for users in dealt] == [[1, 3], [0, 2, 4]]
    assert [users.tolist() for users in deal_by_label(["b", "a", "b", "c"], (), 3, seed=1)] == [[1], [0, 2], [3]]
    at_random = deal_by_label([""] * 100, (0.7, 0.3), 2, seed=1)
    assert [len(users) for users in at_random] == [70, 30]
    assert at_random[0].tolist() != list(range(70))
    with pytest.raises(ConfigError, match="3 labels"):
        deal_by_label(["a", "b", "c"], (), 2, seed=1)
    with pytest.raises(ConfigError, match="no user"):
        deal_by_label(["a", "b", "c"], (0.01, 0.99), 2, seed=1)


def shop() -> Scene:
    """Six items of three makers in two categories, two days apart; nobody's are the last two."""
    catalog = ItemCatalog(
        tuple("abcdef"), tuple("ABCDEF"), tuple("ABCDEF"), (("x",), ("x",), ("x",), ("y",), ("y",), ("y",)), (None,) * 6
    )
    fields = tuple({"maker": maker, "price": float(price)} for price, maker in enumerate("mmnnoo"))
    rows: Rows = [("u1", 0, "view", 86400.0 * 12), ("u2", 3, "purchase", 86400.0 * 11)]
    labels = {"u1": {"minor": True}, "u2": {"minor": False}}
    appeared = 86400.0 * 2 * np.arange(1, 7)
    return Scene(catalog, EventLog.of(rows, catalog.ids, KINDS), fields, appeared, labels, "made here", "made")


def scenario_of(rules: list[dict[str, object]], **more: object) -> ScenarioConfig:
    values = {"domain": "shop", "events": {kind: {"weight": weight} for kind, weight in WEIGHTS.items()}}
    given: dict[str, object] = {"fields": ["maker", "price"], "provider": "maker", "rules": rules}
    return ScenarioConfig.model_validate(values | given | more)


def asked(scene: Scene) -> Questions:
    scores = np.tile(np.array([6, 5, 4, 3, 2, 1], np.float32), (2, 1))
    scores[0, 0] = scores[1, 3] = -np.inf
    histories = [np.array([0], np.int32), np.array([3], np.int32)]
    return Questions(scores, histories, [scene.labels["u1"], scene.labels["u2"]])


RULES: list[dict[str, object]] = [
    {"name": "not for minors", "action": "exclude", "category": "y", "segment": {"minor": True}},
    {"name": "cheap", "action": "boost", "where": "item.price >= 5.0", "amount": 10.0},
    {"name": "one x", "action": "quota", "category": "x", "limit": 1},
    {"name": "fresh", "action": "filter", "where": "now - timestamp < 864000.0"},
]


def test_rules_act_as_they_do_in_a_service_and_each_is_told_by_what_it_changes() -> None:
    scene = shop()
    lister = Lister(scene, scenario_of(RULES), np.ones(6))
    plain, ruled = lister.plain(asked(scene)), lister.ruled(asked(scene))
    assert plain[:, :5].tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 4, 5]]
    # Of u1 one x and no y; "a" is eight days old at the twelfth, so that none is filtered out but at ten days.
    assert ruled[:, :4].tolist() == [[1, -1, -1, -1], [5, 1, 4, -1]]
    told = {rule["name"]: changes(ruled, lister.ruled(asked(scene), str(rule["name"]))) for rule in RULES}
    assert told["not for minors"] == {"lists": 0.5, "places": 0.0}
    assert told["cheap"]["lists"] == 0.5
    assert told["fresh"] == {"lists": 0.5, "places": 0.5}
    assert told["one x"]["lists"] == 1.0


def test_a_baselines_order_is_kept_where_boosts_need_nats() -> None:
    scores = np.array([[300.0, -np.inf, 7.0, 0.1]], np.float32)
    assert in_nats(scores, "federated_dp") is scores
    nats = in_nats(scores, "popularity")
    assert np.allclose(nats[0, [0, 2, 3]], -np.log([1, 2, 3]))
    assert nats[0, 1] == -np.inf


def test_figures_are_what_reading_the_lists_gives() -> None:
    scene = shop()
    metrics = ["value", "coverage", "novelty", "miscalibration", "categories", "familiar", "provider_gini", "age_days"]
    scenario = scenario_of([], metrics=metrics)
    lists = np.full((2, 10), -1, np.int64)
    lists[0, :2], lists[1, :2] = [1, 3], [4, 5]
    histories = [np.array([0], np.int32), np.array([3], np.int32)]
    answers = Answers(np.array([3, 0]), np.array([5.0, 1.0]), histories, np.ones(6), now=86400.0 * 12)
    found = figures_of(lists, scene, scenario, answers)
    assert found["hr@10"] == 0.5
    assert found["ndcg@10"] == pytest.approx(0.5 / np.log2(3))
    assert found["value"] == pytest.approx(5 / 6)
    assert found["coverage"] == pytest.approx(4 / 6)
    assert found["novelty"] == pytest.approx(np.log2(6))
    assert found["categories"] == 1.5
    assert found["familiar"] == 0.25
    assert found["age_days"] == 3.0
    # u1's list is half of what the history is wholly; u2's is the same mixture.
    assert found["miscalibration"] == pytest.approx(-np.log(0.99 * 0.5 + 0.01) / 2)
    place = 1 / np.log2(3)
    shares = sorted([1 / (1 + place), place / (1 + place), 1.0])
    assert found["provider_gini"] == pytest.approx(2 * (shares[0] + 2 * shares[1] + 3 * shares[2]) / (3 * 2) - 4 / 3)


def test_a_policys_value_is_the_rate_of_the_rows_that_its_lists_hold() -> None:
    lists = np.array([[0, 1], [2, 3]])
    shows = LoggedShows(("a",) * 4, np.array([0, 2, 2, 0], np.int32), np.array([1.0, 0, 1, 1]), np.full(4, 0.25))
    found = policy_value(lists, np.array([0, 0, 1, 1]), shows)
    assert found["policy_value"] == pytest.approx(1.0)  # of the first and the third row, which alone are on the lists
    assert policy_value(lists, np.array([0, 1, 1, 1]), shows)["policy_value"] == pytest.approx(2 / 3)


def test_figures_are_means_over_seeds() -> None:
    assert over_seeds([{"plain": {"hr@10": 0.1}, "people": 4}, {"plain": {"hr@10": 0.3}, "people": 4}]) == {
        "plain": {"hr@10": pytest.approx(0.2)},
        "people": 4,
    }


def test_a_made_scene_is_the_same_for_a_seed_and_says_that_it_is_made() -> None:
    for make in (music_scene, social_scene):
        one, again, other = make(30, 1), make(30, 1), make(30, 2)
        assert one.log.timestamps.tolist() == again.log.timestamps.tolist()
        assert one.log.timestamps.tolist() != other.log.timestamps.tolist()
        assert one.made
        assert one.told.startswith("Made: ")
        assert min(one.log.counts().values()) > 0
        assert set(one.labels) == set(one.log.user_ids)
        assert len(set(one.catalog.ids)) == len(one.catalog)


def test_made_listeners_and_members_do_what_is_stated() -> None:
    music, social = music_scene(150), social_scene(150)
    services = [own["service"] for own in music.labels.values()]
    assert {*services} == {*SERVICES}
    skips, family = defaultdict(list), {u for u, own in music.labels.items() if own["plan"] == "family"}
    for user, item, kind in zip(music.log.user_codes, music.log.item_codes, music.log.kind_codes, strict=True):
        if music.fields[item]["explicit"] and music.log.kinds[kind] in ("skip", "finish"):
            skips[music.log.user_ids[user] in family].append(music.log.kinds[kind] == "skip")
    assert np.mean(skips[True]) == 1.0
    assert np.mean(skips[False]) < 0.5
    age = social.log.timestamps - social.appeared[social.log.item_codes]
    assert age.min() > 0
    assert age.max() < 6.1 * 86400
    liked = np.bincount(social.log.item_codes[social.log.kind_codes == 1], minlength=len(social.catalog))
    reported = np.array([own["reports"] >= 2 for own in social.fields])
    assert liked[reported].sum() == 0


def test_groups_of_visitors_have_earlier_clicks_once_and_other_rows_stay_apart() -> None:
    affinities = np.zeros((3, 2), np.float32)
    affinities[1:, 1] = 2.0  # the same visitor twice: one earlier click
    log = BanditLog(
        actions=np.array([0, 0, 1], np.int32),
        positions=np.zeros(3, np.int32),
        rewards=np.array([1.0, 0, 0]),
        propensities=np.full(3, 0.5),
        timestamps=np.array([1.0, 2.0, 3.0]),
        users=np.array([["f1", "g1"]] * 3),
        affinities=affinities,
        item_numbers=np.zeros(2),
        item_words=np.zeros((2, 3), np.int32),
    )
    scene = bandit_scene(dict.fromkeys(CAMPAIGNS, log), dict.fromkeys(CAMPAIGNS, log))
    assert scene.log.counts() == {"shown": 9, "clicked-before": 3, "click": 3}
    assert scene.log.user_ids == ("all/f1-g1", "men/f1-g1", "women/f1-g1")
    assert [own["campaign"] for own in scene.fields] == ["all", "all", "men", "men", "women", "women"]
    assert scene.shows is not None
    assert scene.shows.items.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5]
    assert scene.made is None


def test_rules_are_told_in_words() -> None:
    assert rule_words(RULES[0]) == 'exclude "y", for minor = true'
    assert rule_words({"action": "quota", "category": "*", "limit": 3}) == "at most 3 of each category"
    assert rule_words({"action": "filter", "field": "price", "at_most": 3.0}) == "only price <= 3"


def test_the_report_tells_of_a_scenario_and_escapes_it() -> None:
    summary = made_summary([1])
    row = {
        "plain": {"hr@10": 0.1, "ndcg@10": 0.05, "value": 0.123},
        "ruled": {"hr@10": 0.2, "ndcg@10": 0.06, "value": 0.2},
        "rules": {"a rule": {"lists": 0.25, "places": 1.5}},
        "people": 9,
        "sample": 4,
    }
    scenario = {
        "domain": "shop <b>",
        "told": "Made: all of it.",
        "made": "made here",
        "events": {"view": {"means": "seen", "weight": 0.0, "count": 1234}},
        "positive_from": 1.0,
        "pairs": 10,
        "positives": 5,
        "users_seen": 3,
        "fields": [],
        "provider": "",
        "calibration": 0.2,
        "rules": [{"name": "a rule", "action": "exclude", "where": "item.price < 3.0"}],
        "partners": [2, 1],
        "partners_by": "",
        "rows": {"popularity": row, "federated_dp": row},
    }
    page = render_report(summary | {"scenario": scenario}, [])
    assert "<strong>Made data.</strong>" in page
    assert "shop &lt;b&gt;" in page
    assert "12.3%" in page
    assert "25.0% (1.50)" in page
    assert "exclude item.price &lt; 3.0" in page
    assert 'id="scenario"' not in render_report(summary, [])


def test_publishing_one_scenario_keeps_the_others_and_fills_the_page(tmp_path: Path) -> None:
    known = json.loads((Path(__file__).resolve().parents[2] / "docs/scenarios.json").read_text(encoding="utf-8"))
    kept, to = {name: known[name] for name in ("video", "music")}, tmp_path / "scenarios.json"
    to.write_text(json.dumps(kept), encoding="utf-8")
    page = to.with_suffix(".md")
    page.write_text("# Scenarios\n", encoding="utf-8")
    again = known["video"] | {"seconds": 1.0, "privacy": {"delta": known["video"]["delta"]}}
    with pytest.raises(ConfigError, match="no place"):
        publish({"video": again}, to)
    assert json.loads(to.read_text(encoding="utf-8")) == kept
    page.write_text(f"# Scenarios\n\n{BEGIN}\nold\n{END}\n\nmore\n", encoding="utf-8")
    publish({"video": again}, to)
    found = json.loads(to.read_text(encoding="utf-8"))
    assert (found["music"], found["video"]["seconds"]) == (kept["music"], 1.0)
    text = page.read_text(encoding="utf-8")
    assert text == f"# Scenarios\n\n{BEGIN}\n{section(found)}\n{END}\n\nmore\n"
    assert "**made**" in text


def test_a_scenario_that_is_not_there_is_named() -> None:
    found = CliRunner().invoke(app, ["scenarios", "video", "books"])
    assert isinstance(found.exception, ConfigError)
    assert "books" in str(found.exception)
