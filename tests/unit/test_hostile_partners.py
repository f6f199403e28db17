"""What hostile partners send, held against what the papers say, and what a table of them is read as."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedrec.config import SimulationConfig, load_config
from fedrec.defence import AttackConfig, AttackName, AttackStrengths
from fedrec.errors import ConfigError
from fedrec.model.adapter import AdapterDelta
from fedrec_sim.attacks.forged import FROM_ALL, FROM_OWN, forge, median_norm, noise_like
from fedrec_sim.attacks.laboratory import cells_of, refuse_unfit
from fedrec_sim.attacks.page import publish_robustness
from fedrec_sim.attacks.poisoned import item_of, with_item_planted, with_other_items
from fedrec_sim.attacks.table import chosen
from fedrec_sim.cli_output import CONFIGS

STRENGTH = AttackStrengths()


def answer(*values: float) -> AdapterDelta:
    half = len(values) // 2
    return AdapterDelta({"w": np.float32(values[:half]), "v": np.float32([values[half:]])})


HONEST = [answer(1.0, 2.0, 0.0, -1.0), answer(3.0, 2.0, 0.5, -2.0), answer(2.0, 5.0, 1.0, -3.0)]


def forged(attack: AttackName, own: AdapterDelta = HONEST[0], **strength: float) -> dict[str, Any]:
    sent = forge(attack, own, HONEST, STRENGTH.model_copy(update=strength), np.random.default_rng(1))
    return {name: tensor.ravel().tolist() for name, tensor in sent.tensors.items()}


def test_an_honest_answer_boosted_or_turned_round() -> None:
    assert forged("boosted", boosted=10.0) == {"v": [0.0, -10.0], "w": [10.0, 20.0]}
    assert forged("sign-flip", sign_flip=5.0) == {"v": [0.0, 5.0], "w": [-5.0, -10.0]}


def test_against_the_honest_mean_and_a_little_off_it() -> None:
    assert forged("inner-product", inner_product=2.0) == {"v": [-1.0, 4.0], "w": [-4.0, -6.0]}
    found = forged("alie", alie=1.5)
    for name, values in found.items():
        rows = np.stack([one.tensors[name].ravel() for one in HONEST]).astype(float)
        np.testing.assert_allclose(values, [np.mean(c) - 1.5 * np.std(c) for c in rows.T], rtol=1e-6)


def test_noise_is_as_long_as_it_should_be_and_not_an_honest_answer() -> None:
    rng = np.random.default_rng(1)
    loud = forge("gaussian", HONEST[1], [], STRENGTH, rng)
    assert loud.l2_norm == pytest.approx(10 * HONEST[1].l2_norm, rel=1e-5)
    lazy = forge("free-rider", HONEST[0], HONEST, STRENGTH, rng)
    assert lazy.l2_norm == pytest.approx(median_norm(HONEST), rel=1e-5)
    assert noise_like(HONEST[0], 1.0, rng).hash != noise_like(HONEST[0], 1.0, rng).hash


def test_what_needs_training_is_not_forged() -> None:
    for attack in ("none", "label-flip", "promotion", "sybil"):
        assert attack not in (*FROM_OWN, *FROM_ALL)
        with pytest.raises(ValueError, match=f"{attack} is not made from answers"):
            forged(attack)


def test_histories_are_tampered_with_in_copies() -> None:
    histories = [np.array([3, 4, 5, 6], np.int32), np.array([9], np.int32)]
    assert [h.tolist() for h in with_item_planted(histories, 7)] == [[3, 7, 5, 7], [9]]
    assert [h.tolist() for h in with_other_items(histories, 10)] == [[6, 5, 4, 3], [0]]
    assert [h.tolist() for h in histories] == [[3, 4, 5, 6], [9]]
    assert with_other_items(histories, 10)[0].dtype == np.int32


def test_the_promoted_item_is_named_by_its_title() -> None:
    assert item_of(["Heat (1995)", "Fargo (1996)"], "Fargo (1996)") == 1
    with pytest.raises(ConfigError, match="no item is called 'Fargo'"):
        item_of(["Heat (1995)", "Fargo (1996)"], "Fargo")


def changed(**sections: Any) -> SimulationConfig:
    config = load_config(CONFIGS / "attack-inspect.toml")
    return config.model_copy(update=sections)


def test_every_attack_is_tried_on_every_aggregator_the_unattacked_first() -> None:
    attack = AttackConfig(attacks=("sybil", "none"), defences=("mean", "median"))
    cells = cells_of(changed(attack=attack, seeds=(1, 2)))
    assert [(c.attack, c.defence, c.seed) for c in cells] == [
        (attack, defence, seed) for seed in (1, 2) for attack in ("none", "sybil") for defence in ("mean", "median")
    ]


def test_what_cannot_be_attacked_is_refused_with_all_reasons() -> None:
    refuse_unfit(changed())
    config = changed(rows=("ease", "federated_dp"), attack=AttackConfig(hostile=10, defences=("median",)))
    with pytest.raises(ConfigError) as caught:
        refuse_unfit(config)
    words = ("one is attacked", "ease is not federated", "leaves nobody honest", "secagg mode allows", "= 21 answers")
    assert [word for word in words if word not in str(caught.value)] == []


def cell(test: float, validation: float, exposure: float = 0.0) -> dict[str, Any]:
    figures = {"ndcg@10": test, "ndcg@10_std": 0.0, "exposure": 0.25, "kept": test, "kept_of_mean": test}
    return {**figures, "validation": {"ndcg@10": validation, "exposure": exposure}}


CELLS = {
    "none": {"mean": cell(0.9, 0.9), "median": cell(0.7, 0.9), "multi-krum": cell(0.8, 0.9)},
    "sybil": {"mean": cell(0.9, 0.1), "median": cell(0.2, 0.85, 0.1), "multi-krum": cell(0.7, 0.89, 0.7)},
}


def test_an_aggregator_is_chosen_by_its_worst_attack_on_validation_and_not_on_test() -> None:
    assert chosen(CELLS) == "median"
    unseen = {**CELLS, "promotion": dict.fromkeys(CELLS["none"], cell(0.9, 0.89)) | {"median": cell(0.9, 0.8)}}
    assert chosen(unseen) == "multi-krum"
    nobody = {**CELLS, "boosted": {"mean": cell(1, 0.2), "median": cell(1, 0.3), "multi-krum": cell(1, 0.4)}}
    assert chosen(nobody) == "multi-krum"


def test_a_table_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    config = changed(attack=AttackConfig(attacks=("sybil",), defences=("mean", "median", "multi-krum")))
    summary = {"name": "attack-inspect", "row": "r", "epsilon": 8.0, "rounds": 2, "partners": 3, "hostile": 1}
    summary |= {"quorum": 3, "protocol": "B", "which": "test", "data": {"name": "made"}, "seeds": [1]}
    summary |= {
        "chosen_on_validation": "median",
        "seconds": 3.0,
        "commit": "c",
        "created_at": "t",
        "command": "fedrec x",
    }
    summary |= {"untrained_ndcg@10": 0.123, "cells": CELLS, "config": config.model_dump(mode="json")}
    page = tmp_path / "robustness.md"
    page.write_text("# Hostile\n")
    with pytest.raises(ConfigError, match="no place for attack-inspect"):
        publish_robustness(summary, tmp_path)
    page.write_text("before\n<!-- attack-inspect: begin -->\nold\n<!-- attack-inspect: end -->\nafter\n")
    for _ in range(2):
        figures, _ = publish_robustness(summary, tmp_path)
    text = page.read_text()
    assert re.match(r"before\n(.|\n)*\nafter\n$", text)
    assert "\nold\n" not in text
    assert text.count("| `sybil` | 0.9000 (90%, 90%) | 0.2000 (20%, 20%) | 0.7000 (70%, 70%) |") == 1
    assert text.count("| `sybil` | 25.0% | 25.0% | 25.0% |") == 1
    assert figures.name == "attack-inspect.json"
