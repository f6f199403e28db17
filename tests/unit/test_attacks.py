"""The attacks on what leaves: right where the answer is known, helpless against great noise, and fair to the truth."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from scipy.stats import norm
from typer.testing import CliRunner

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.errors import ConfigError, PrivacyError
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, part_names, read_state
from fedrec.privacy.mechanism import Event
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.training.local import PlainSettings
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.audit import attack as attacks_module
from fedrec_sim.audit.attack import Attacked, Attacks, Ceiling
from fedrec_sim.audit.attack_plots import attack_figure
from fedrec_sim.audit.evidence import Evidence, Leans, Matches, collect, count_rows, head_gradients, head_inputs, match
from fedrec_sim.audit.membership import (
    CURVE_RATES,
    Interval,
    Membership,
    area_under_roc,
    attack_members,
    ceiling,
    found_rates,
    judge,
    lira,
    unmix,
)
from fedrec_sim.audit.reconstruction import Known, Reconstruction, attack_histories, lean_ratios, recall
from fedrec_sim.audit.shadows import Stage, events_that_hold, shadow_training
from fedrec_sim.cli import app

GAUSSIAN: list[Event] = [("a", 1.0, 1.0, 1)]
RUNS, USERS, ITEMS = 24, 60, 200


def coins(rng: np.random.Generator) -> np.ndarray:
    return rng.random((RUNS, USERS)) < 0.5


def evidence_of(rows: np.ndarray, present: np.ndarray, noise_std: float, rng: np.random.Generator) -> Evidence:
    """One honest Gaussian release of the sum of `rows`, as if it were the prior round; nothing else left."""
    released = rows[present].sum(0) + noise_std * rng.normal(size=rows.shape[1])
    nothing = Matches(np.zeros(len(rows)), np.zeros((len(rows), len(rows))))
    matches = match(torch.from_numpy(rows), released, noise_std)
    return Evidence(present, matches, nothing, released, leans=None, loss_drop=None)


def user_rows(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Item counts at L2 norm 1, and the items, of made users without anything in common."""
    items = [np.sort(rng.choice(ITEMS, size=int(rng.integers(5, 15)), replace=False)) for _ in range(USERS)]
    rows = np.zeros((USERS, ITEMS))
    for row, liked in zip(rows, items, strict=True):
        row[liked] = 1 / np.sqrt(len(liked))
    return rows, items


def test_roc_figures_by_hand() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    present = np.array([True, False, True, False, True])
    assert area_under_roc(scores, present) == pytest.approx(3 / 6)  # pairs won: 4 beats both, 2 beats 1, 0 none
    # No false alarm: only the 4. Half of the absent: all above 1. All: everybody.
    assert found_rates(scores, present, np.array([0.0, 0.5, 1.0])) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert area_under_roc(np.zeros(5), present) == 0.5
    assert found_rates(np.zeros(5), present, np.array([0.4])) == [0.0]  # ties are not called


def test_lira_on_made_gaussians_comes_close_to_the_best_test() -> None:
    rng = np.random.default_rng(1)
    present = coins(rng)
    # Users differ in level; only who fits Gaussians for each of them gets the difference of 2 standard deviations.
    statistics = 2.0 * present + rng.normal(size=present.shape) + 20 * rng.normal(size=USERS)
    area = area_under_roc(lira(statistics, present), present)
    best = norm.cdf(2 / np.sqrt(2))
    assert best - 0.05 < area < best + 0.02
    assert area_under_roc(statistics, present) < 0.6
    unrelated = area_under_roc(lira(rng.normal(size=present.shape), present), present)
    assert abs(unrelated - 0.5) < 0.05


def test_a_run_is_judged_without_its_own_answer() -> None:
    rng = np.random.default_rng(2)
    present = coins(rng)
    statistics = rng.normal(size=present.shape)
    turned = present.copy()
    turned[5] = ~turned[5]
    assert np.array_equal(lira(statistics, present)[5], lira(statistics, turned)[5])


def test_joint_attack_solves_what_nothing_hides() -> None:
    rng = np.random.default_rng(3)
    rows, _ = user_rows(rng)
    present = rng.random(USERS) < 0.5
    solved = unmix(evidence_of(rows, present, 1e-6, rng).counts, expected=0.5, variance=0.25)
    assert solved == pytest.approx(present.astype(float), abs=1e-4)


@pytest.mark.parametrize("events", [GAUSSIAN, [("a", 0.1, 0.8, 20)], [("a", 1.0, 1.4, 1), ("b", 1.0, 4.9, 45)]])
def test_the_ceiling_lies_between_guessing_and_certainty_and_rises(events: list[Event]) -> None:
    rates = np.linspace(0.0, 1.0, 201)
    most = ceiling(events, rates, 1e-5)
    assert (most >= rates).all()
    assert (most <= 1).all()
    assert (np.diff(most) >= -1e-12).all()


def test_the_ceiling_of_one_gaussian_is_its_best_test() -> None:
    rates = np.array([0.001, 0.01, 0.1, 0.5, 0.9])
    best = norm.cdf(norm.ppf(rates) + 1.0)
    most = ceiling(GAUSSIAN, rates, 1e-5)
    assert (most >= best - 1e-9).all()
    assert most == pytest.approx(best, abs=0.01)


def test_an_honest_mechanism_stays_below_its_ceiling_and_a_weak_one_does_not() -> None:
    rng = np.random.default_rng(4)
    rows, _ = user_rows(rng)
    present = coins(rng)
    for noise, honest in ((1.0, True), (0.5, False)):
        evidence = [evidence_of(rows, there, noise, rng) for there in present]
        best = attack_members(evidence, private=True, seed=1)[-1]
        most = ceiling(GAUSSIAN, np.array([0.001, 0.01, 0.1]), 1e-5)
        attacked = replace(made_setting(), membership=(best,), ceiling=Ceiling(tuple(most), ()))
        assert attacked.beats_its_ceiling is not honest
        assert best.auc.low < norm.cdf(1 / noise / np.sqrt(2)) < best.auc.high


def test_what_an_attacker_knows_more_helps_it() -> None:
    rng = np.random.default_rng(5)
    rows, _ = user_rows(rng)
    rows = (rows + 0.3) / np.linalg.norm(rows + 0.3, axis=1, keepdims=True)  # much in common: others hide a user
    evidence = [evidence_of(rows, there, 0.7, rng) for there in coins(rng)]
    alone, joint, exact = (attacker.auc.value for attacker in attack_members(evidence, private=True, seed=1))
    assert alone < joint < exact


def test_reconstruction_without_noise_is_complete_and_under_great_noise_chance() -> None:
    rng = np.random.default_rng(6)
    rows, items = user_rows(rng)
    present = coins(rng)[:4]
    popularity = np.bincount(np.concatenate(items), minlength=ITEMS).astype(float)
    exact = [evidence_of(rows, there, 1e-9, rng) for there in present]
    means = [replace(run, released_counts=run.released_counts / run.present.sum()) for run in exact]
    without = attack_histories(means, Known(items, rows, popularity, noise_std=None), seed=1)
    assert without.informed.value == 1.0
    assert without.informed_all_rounds is None
    assert without.popularity.value < 0.2
    hidden = [evidence_of(rows, there, 1e3, rng) for there in present]
    under_noise = attack_histories(hidden, Known(items, rows, np.ones(ITEMS), noise_std=1e3), seed=1)
    chance = under_noise.items / ITEMS
    assert under_noise.informed.value == pytest.approx(chance, abs=0.05)
    assert under_noise.top_of_release.value == pytest.approx(chance, abs=0.05)


def test_leans_tell_items_apart_only_through_noise_that_lets_them() -> None:
    rng = np.random.default_rng(7)
    rows, items = user_rows(rng)
    own = 3.0 * (rows > 0) + rng.normal(size=rows.shape) + 5 * rng.normal(size=ITEMS)
    for noise_std, low, high in ((0.1, 0.6, 1.0), (100.0, 0.0, 0.2)):
        leans = Leans(own + noise_std * rng.normal(size=own.shape), own, noise_std)
        recalls = [recall(lean_ratios(leans, rows > 0, user), items[user]) for user in range(USERS)]
        assert low <= np.mean(recalls) <= high


def test_recall_by_hand() -> None:
    assert recall(np.array([0.1, 9.0, 3.0, 2.0]), np.array([1, 3])) == 0.5


@pytest.fixture
def tiny_stage(tiny_llama: Path, features: ItemFeatures, histories: list[np.ndarray]) -> Stage:
    """A prior and two head rounds on the tiny Llama, with little noise."""
    backbone = load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)
    shape = AdapterShape(rank=2, item_dim=0, summary_dim=8, context_dim=4, score_dim=8)
    model = build_model(backbone, features, shape, 0)
    parts = (PartPlan("prior", 1.0, 1.0, 0.01, 1), PartPlan("head", 1.0, 0.02, 0.01, 2))
    plan = PrivacyPlan("user", "secagg", 1e-5, parts, 4)
    sgd, adam = ServerOptimizer("sgd", 1.0, 0.0), ServerOptimizer("adam", 0.1)
    specs = (
        RoundSpec("prior", 1, 1, 1.0, sgd),
        RoundSpec("head", 1, 1, 1 / 30, adam),
        RoundSpec("head", 1, 1, 1 / 30, adam),
    )
    return Stage(model, read_state(model), tuple(histories[:40]), specs, plan, PlainSettings(1e-3, 0.0, 8, 5))


def test_the_recorder_finds_the_noised_sum_in_the_difference(tiny_stage: Stage) -> None:
    """What is left of it without the attacker's own sum of clipped contributions is the partner's noise share."""
    present = np.arange(40) % 2 == 0
    inputs = head_inputs(tiny_stage)
    members = [history for history, there in zip(tiny_stage.pool, present, strict=True) if there]
    seen = 0
    for answer in shadow_training(tiny_stage, members, bytes(32)):
        part = answer.asked.part
        released = answer.noised_sum(part_names(tiny_stage.model, [part]))
        rows = -count_rows(tiny_stage) if part == "prior" else head_gradients(tiny_stage, inputs, answer.start)
        noise = released - rows[torch.from_numpy(present)].double().sum(0).numpy()
        std = {"prior": 0.01, "head": 0.0002}[part] / 2  # a quarter of the variance is the partner's own
        assert noise.std() == pytest.approx(std, rel=0.35 if part == "prior" else 0.15)
        assert rows.norm(dim=1).max() <= {"prior": 1.0, "head": 0.02}[part]
        seen += 1
    assert seen == 3


def test_a_shadow_training_can_be_repeated_and_gives_its_members_away(tiny_stage: Stage) -> None:
    present = np.random.default_rng(8).random(40) < 0.5
    inputs = head_inputs(tiny_stage)
    first, again, other = (collect(tiny_stage, inputs, present, root * 32) for root in (b"a", b"a", b"b"))
    assert np.array_equal(first.head.scores, again.head.scores)
    assert not np.array_equal(first.head.scores, other.head.scores)
    solved = unmix(first.counts + first.head, expected=0.5, variance=0.25)
    assert area_under_roc(solved, present) > 0.99  # with a noise of a hundredth
    assert first.leans is not None
    assert first.leans.left.shape == (40, 40)


def test_an_opened_answer_has_a_share_of_the_noise_alone() -> None:
    plan = PrivacyPlan("user", "secagg", 1e-5, (PartPlan("head", 1.0, 1.0, 4.0, 3),), 4)
    assert events_that_hold(plan) == [("head", 1.0, 2.0, 3)]
    assert events_that_hold(replace(plan, mode="inspect")) == plan.events()


def made_setting() -> Attacked:
    interval = Interval(0.5, 0.4, 0.6)
    attacker = Membership("all", 2000, interval, (interval,) * 3, (0.4,) * 3, tuple(CURVE_RATES))
    reconstruction = Reconstruction(interval, None, interval, interval, 5, 7.0)
    claimed = Ceiling((0.7,) * 3, tuple(CURVE_RATES))
    return Attacked("inspect_8", 7.98, 7.9, 1e-4, 51, 118, 59.0, (attacker,), claimed, reconstruction)


@pytest.mark.parametrize("beaten", [False, True])
def test_the_command_gives_its_figures_and_fails_on_a_beaten_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beaten: bool
) -> None:
    made = replace(made_setting(), ceiling=Ceiling((0.3 if beaten else 0.7,) * 3, tuple(CURVE_RATES)))
    plain = replace(made_setting(), setting="none", epsilon=None, ceiling=None)
    monkeypatch.setattr(attacks_module, "attack", lambda *_, **__: Attacks(1, 4, (plain, made), 0.1))
    plot = tmp_path / "attacks.svg"
    result = CliRunner().invoke(app, ["privacy", "attack", "--shadows", "4", "--plot", str(plot), "--json"])
    figures = json.loads(result.output)
    assert figures["settings"]["inspect_8"]["beats_its_ceiling"] is beaten
    assert {"command", "commit", "seed", "shadows"} <= figures.keys()
    assert isinstance(result.exception, PrivacyError) is beaten
    ElementTree.fromstring(plot.read_text())
    assert 'xmlns="http://www.w3.org/2000/svg"' in plot.read_text()
    table = CliRunner().invoke(app, ["privacy", "attack", "--shadows", "4"])
    assert "0.500" in table.output


def test_an_unknown_setting_is_named() -> None:
    result = CliRunner().invoke(app, ["privacy", "attack", "--setting", "secagg"])
    assert isinstance(result.exception, ConfigError)


def test_the_figure_is_the_same_for_the_same_figures() -> None:
    attacks = Attacks(1, 4, (made_setting(),), 0.1)
    assert attack_figure(attacks) == attack_figure(attacks)
    assert "inspect, epsilon 8" in attack_figure(attacks)


def test_bootstrap_interval_covers_the_figure() -> None:
    rng = np.random.default_rng(9)
    present = coins(rng)
    attacker = judge("made", present + rng.normal(size=present.shape), present, seed=1)
    assert attacker.auc.low < attacker.auc.value < attacker.auc.high
    assert attacker.auc.high - attacker.auc.low < 0.1
