"""The bench of less labels on a made shop: real federations, every setting, and a statement of where each began."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedrec.config import load_config
from fedrec.registry.registry import Registry
from fedrec.training import catalog_start
from fedrec.training.catalog_start import CatalogStart
from fedrec_sim.labels import alignment, start
from fedrec_sim.run import Run, start_run
from fedrec_sim.world import World, load_world

ROW = "federated_eps8_secagg"


@pytest.fixture
def world(config_file: Path) -> World:
    return load_world(load_config(config_file, ("private.delta=1e-3", "rounds.masks=false")))


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    return start_run(tmp_path / "labels", world.config, "fedrec bench labels")


def test_a_start_on_the_catalogue_is_where_rounds_begin(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "ROUNDS", 2)
    monkeypatch.setattr(start, "PUBLIC", (True,))
    monkeypatch.setattr(catalog_start, "CatalogStart", partial(CatalogStart, walks=16, epochs=1))
    found = start.over_seeds([1], [start.bench_start(run, world, ROW, 1, lambda _: None)])
    assert set(found["cells"]) == {"nothing+public", "catalog+public"}
    firsts = []
    for name in ("nothing", "catalog"):
        registry = Registry(run.folder / f"{name}+public" / "registry" / f"{ROW}-1")
        head = registry.head()
        assert head is not None
        assert head.statement["start"] == name
        firsts.append(registry.load(0))
    same = {n for n, t in firsts[0].tensors.items() if (t == firsts[1].tensors[n]).all()}
    assert any(".item_emb." in name for name in same)
    assert any(".popularity." in name for name in same)
    assert not any(".score_head." in name for name in same)


def test_new_items_are_asked_for_by_every_way(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "ROUNDS", 2)
    one = alignment.bench_alignment(run, world, ROW, 1, lambda _: None)
    among = {way: asked["among_new_items"]["ndcg@10"] for way, asked in one["ways"].items()}
    assert len(set(among.values())) > 1
    found = alignment.over_seeds([1], [one])
    assert set(found["ways"]) == set(alignment.WAYS)
    assert found["users"][0] > 0


def test_the_true_vectors_are_turned_into_the_space_of_the_others() -> None:
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((30, 4)).astype(np.float32)
    rotation, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    known = np.arange(25)
    turned = alignment._turned(whole, (whole[known] @ rotation).astype(np.float32), known)
    np.testing.assert_allclose(turned, whole @ rotation, atol=1e-4)
