"""Walks over the public catalogue, and what an adapter learns from them: head, LoRA and projections, nothing else."""

from pathlib import Path

import numpy as np
import torch

from fedrec.data.catalog import ItemCatalog
from fedrec.model.backbone import load_backbone
from fedrec.model.features import item_features
from fedrec.model.methods import part_of
from fedrec.model.recommender import AdapterShape, build_model, read_state
from fedrec.privacy.plan import calibrate
from fedrec.privacy.statement import privacy_statement
from fedrec.training.catalog_start import CatalogStart, catalog_walks, start_from_catalog

SETTINGS = CatalogStart(walks=24, length=6, epochs=1, batch_users=8)
SHAPE = AdapterShape(rank=2, item_dim=3, summary_dim=4, context_dim=6, score_dim=5, popularity_floor=0.5)


def test_walks_stay_where_items_are_alike_and_meet_none_twice(catalog: ItemCatalog) -> None:
    texts = np.random.default_rng(0).standard_normal((len(catalog), 8)).astype(np.float32)
    walks = catalog_walks(catalog, texts, SETTINGS, 1)
    assert len(walks) == 24
    assert all(len(set(walk.tolist())) == 6 for walk in walks)
    again = catalog_walks(catalog, texts, SETTINGS, 1)
    assert all((a == b).all() for a, b in zip(walks, again, strict=True))

    def alike(walks: list[np.ndarray]) -> float:
        unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
        return float(np.mean([(unit[w[1:]] * unit[w[:-1]]).sum(1).mean() for w in walks]))

    wild = catalog_walks(catalog, texts, CatalogStart(walks=24, length=6, temperature=100.0), 1)
    assert alike(walks) > alike(wild) + 0.2


def test_an_adapter_learns_from_walks_alone(catalog: ItemCatalog, tiny_llama: Path, tmp_path: Path) -> None:
    features = item_features(catalog, tiny_llama, None, layer=2, dim=8, cache=tmp_path)
    states = []
    for _ in range(2):
        model = build_model(load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32), features, SHAPE, 0)
        before = read_state(model)
        start_from_catalog(model, catalog, features.vectors, 3, SETTINGS)
        states.append(read_state(model))
    assert states[0].hash == states[1].hash  # the same for everybody who makes it
    changed = {name for name, tensor in states[0].tensors.items() if (tensor != before.tensors[name]).any()}
    assert {part_of(name) for name in changed} == {"head", "lora", "projection"}
    assert not any(".item_emb." in name for name in changed)


def test_the_statement_says_where_training_starts() -> None:
    plan = calibrate([("head", 2, 1.0, 1.0, 1.0)], 8.0, 1e-4, mode="inspect", quorum=1)
    assert privacy_statement(plan, noise_source="seeded", simulated=True, start="catalog")["start"] == "catalog"
    assert privacy_statement(plan, noise_source="seeded", simulated=True)["start"] == "nothing"
