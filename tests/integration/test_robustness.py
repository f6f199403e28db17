"""Hostile partners in whole runs on made data: a table can be gone on with, and the honest train as ever."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.config import load_config
from fedrec.data.catalog import ItemCatalog
from fedrec.defence import AttackName
from fedrec.model.adapter import AdapterState
from fedrec.training.local import ContextCache
from fedrec.wire import RoundPlan
from fedrec_sim.attacks import laboratory
from fedrec_sim.attacks.hostile import Attacker
from fedrec_sim.cli import app
from fedrec_sim.federation import partners_of, private_schedule
from fedrec_sim.partners import Partners
from fedrec_sim.rows import Stopped
from fedrec_sim.run import hold_run, resume_run, start_run
from fedrec_sim.world import load_world

SMALL = (
    'rows=["federated_dp_inspect"]',
    "partners=5",
    "rounds.quorum=4",
    "attack.hostile=1",
    'private.ledger="pooled"',
)


@pytest.fixture(scope="module")
def promoted(catalog: ItemCatalog) -> str:
    return f"attack.promoted={json.dumps(catalog.titles[39])}"


def command(root: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, ["robustness", "--runs", str(root), "--json", *words])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_a_table_with_and_without_privacy(config_file: Path, tmp_path: Path, promoted: str) -> None:
    tried = {"federated_dp_inspect": ["free-rider", "label-flip", "alie", "sybil"], "federated": ["none", "sybil"]}
    for row, defence in (("federated_dp_inspect", "median"), ("federated", "trimmed-mean")):
        settings = (*SMALL[1:], promoted, f'rows=["{row}"]', f'attack.defences=["{defence}"]', f"name={row}")
        settings += (f"attack.attacks={json.dumps(tried[row])}",)
        table = command(tmp_path, "--config", str(config_file), *(word for s in settings for word in ("--set", s)))
        cells = table["cells"]
        assert list(cells) == list(dict.fromkeys(["none", *tried[row]]))
        assert all(0 <= cells[attack][defence]["ndcg@10"] <= 1 for attack in cells)
        assert cells["none"][defence]["kept"] == 1.0
        assert table["chosen_on_validation"] == defence
        assert (table["epsilon"] is None) == (row == "federated")
        assert not list((tmp_path / "robustness" / row / "cells").iterdir())


def test_what_is_finished_is_not_trained_again(
    config_file: Path, tmp_path: Path, promoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = ('attack.attacks=["promotion"]', 'attack.defences=["mean"]')
    config, asked = load_config(config_file, (*SMALL, promoted, *attacks)), list[bool]()
    with hold_run(tmp_path, "tiny", resume=False) as place:
        run, world = start_run(place, config, "fedrec test"), load_world(config)
        with pytest.raises(Stopped):  # in the second cell
            laboratory.run_laboratory(run, world, lambda _: None, lambda: run.row_path("none-mean", 1).exists())
        assert not run.row_path("promotion-mean", 1).exists()
        first = run.row_path("none-mean", 1).read_bytes()
        table = laboratory.run_laboratory(resume_run(place), world, lambda _: asked.append(True))
        assert len(asked) == 1
        assert run.row_path("none-mean", 1).read_bytes() == first
        assert table["untrained_ndcg@10"] == json.loads(run.row_path("untrained", 1).read_bytes())["ndcg@10"]
        monkeypatch.setattr(laboratory, "_try", None)
        assert laboratory.run_laboratory(resume_run(place), world, lambda _: None)["cells"] == table["cells"]
    found, unattacked = (table["cells"][attack]["mean"] for attack in ("promotion", "none"))
    assert found["exposure"] > unattacked["exposure"] + 0.3
    assert found["exposure_before"] == unattacked["exposure"]
    assert found["kept"] == found["kept_of_mean"] == found["ndcg@10"] / unattacked["ndcg@10"] != 1


@pytest.fixture
def make_partners(config_file: Path, tmp_path: Path) -> Callable[[], tuple[Partners, RoundPlan, AdapterState]]:
    """Partners with ledgers, and their first head round."""
    config = load_config(config_file, SMALL)
    world = load_world(config)
    corpus = world.corpus(1)

    def make() -> tuple[Partners, RoundPlan, AdapterState]:
        from fedrec.model.recommender import read_state

        with hold_run(tmp_path, "tiny", resume=False) as place:
            run = start_run(place, config, "fedrec test")
        partners = partners_of(world, corpus, run, row="federated_dp_inspect", seed=1, mode="inspect")
        partners.enrol(begun=False)
        assert partners.plan is not None
        spec, state = private_schedule(partners.config, corpus.n_trained)[1], read_state(partners.model)
        work = (spec.part, spec.local_epochs, spec.local_steps, spec.learning_rate)
        rest = (state.hash, partners.plan.hash, "inspect", partners.plan.quorum, 9.0, 1)
        return partners, RoundPlan("tiny", 1, 1, *work, *rest), state

    return make


Made = Callable[[], tuple[Partners, RoundPlan, AdapterState]]


def hostile_among(partners: Partners, attack: AttackName, hostile: int = 2) -> Partners:
    attack_config = partners.config.attack.model_copy(update={"hostile": hostile})
    config = partners.config.model_copy(update={"attack": attack_config})
    partners.stand_in = Attacker(attack, config, partners, 39, dict[str, ContextCache]()).stand_in
    return partners


def test_the_honest_answer_as_if_nobody_was_hostile(make_partners: Made) -> None:
    partners, plan, state = make_partners()
    alone = {name: partners.find(name).train(plan, state)[1].hash for name in partners.names}
    for attack in ("sybil", "alie", "boosted"):
        partners, plan, state = make_partners()
        hostile_among(partners, attack)
        found = {name: partners.find(name).train(plan, state)[1].hash for name in reversed(partners.names)}
        assert [name for name in partners.names if found[name] != alone[name]] == partners.names[-2:]


def test_sybils_send_one_answer_under_two_names_as_long_as_an_honest_one(make_partners: Made) -> None:
    partners, plan, state = make_partners()
    hostile_among(partners, "sybil")
    answers = [partners.find(name).train(plan, state) for name in partners.names]
    (one, first), (two, second) = answers[-2:]
    assert (one.partner, two.partner) == tuple(partners.names[-2:])
    assert first.hash == second.hash == one.delta_hash == two.delta_hash
    norms = [sent.l2_norm for _, sent in answers]
    assert norms[-1] == pytest.approx(np.median(norms[:-2]), rel=1e-5)


def test_a_hostile_partner_adds_no_noise(make_partners: Made) -> None:
    partners, plan, state = make_partners()
    hostile_among(partners, "label-flip")
    honest, flipped = (partners.find(name).train(plan, state)[1].l2_norm for name in partners.names[::4])
    assert partners.plan is not None
    most = plan.learning_rate * 14 * next(p.l2_clip_norm for p in partners.plan.parts if p.part == plan.part)
    assert 0 < flipped < most < honest
