"""Tests on the real data and model, which `make setup` has fetched."""

from pathlib import Path

import numpy as np
import pytest

from fedrec.config import load_config
from fedrec.data import generator
from fedrec.data.datasets import load_data
from fedrec.data.sequences import build_sequences
from fedrec.data.sources import cache_dir, load_ml100k
from fedrec.errors import PrivacyError
from fedrec.model import public_data
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import part_names, read_state
from fedrec.privacy.noise import NoiseSource
from fedrec.recommend.recommender import ModelRecommender
from fedrec.training.local import ContextCache, PrivateStep, private_step
from fedrec_sim.world import load_world

ROOT = Path(__file__).resolve().parents[2]
FETCHED = all((cache_dir() / name).is_dir() for name in ("ml-100k", "movielens-small", "smollm2-135m", "minilm-l6-v2"))


@pytest.mark.real
@pytest.mark.skipif(not FETCHED, reason="run `make setup` first: it fetches data and models")
def test_private_steps_on_movielens_and_smollm2() -> None:
    world = load_world(load_config(ROOT / "simulations/configs/demo.toml"))
    assert (world.table.n_users, len(world.catalog), world.table.n_rows) == (943, 1682, 100_000)
    assert world.backbone.hidden_size == 576
    corpus = world.corpus(seed=1)
    model = world.model(world.config.private.shape, seed=1)
    before = read_state(model).hash
    for part in ("prior", "head", "lora"):
        step = PrivateStep(part, 1.0, 0.3, noise_std=0.01, learning_rate=0.1, max_history=20)
        source = NoiseSource.from_root(bytes(32), part.encode())
        private_step(model, part_names(model, [part]), corpus.histories[:16], step, source, ContextCache())
    assert read_state(model).hash != before
    ranked = ModelRecommender(model, 50).rank(corpus.histories[41], 10)
    assert len(set(ranked.items)) == 10
    assert np.isfinite(ranked.scores).all()
    assert world.catalog.titles[world.catalog.find_title("toy story (1995)")] == "Toy Story (1995)"


@pytest.mark.real
@pytest.mark.skipif(not FETCHED, reason="run `make setup` first: it fetches data and models")
def test_nobody_of_movielens_is_among_the_generated_users() -> None:
    catalog, table = load_ml100k(cache_dir() / "ml-100k")
    crowd = generator.fit(table, catalog, source="ml-100k")
    real = {frozenset(sequence.items.tolist()) for sequence in build_sequences(table, 0)}
    made = [s for part in generator.made_users(crowd, catalog, users=256, seed=1) for s in build_sequences(part, 0)]
    assert len(made) == 256
    assert not real & {frozenset(sequence.items.tolist()) for sequence in made}
    # Nor nearly anybody: of two histories of the same length, at most so much is the same.
    likeness = max(
        len(mine & theirs) / len(mine | theirs) for s in made for mine in [set(s.items.tolist())] for theirs in real
    )
    assert likeness < 0.6


@pytest.mark.real
@pytest.mark.skipif(not FETCHED, reason="run `make setup` first: it fetches data and models")
def test_public_behaviour_is_decomposed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, private = load_data("ml-100k", lambda _: None)
    texts = ItemFeatures.of_text(np.zeros((len(catalog), 2), np.float32), np.zeros((len(catalog), 2), np.float32), "t")
    reads: list[str] = []
    monkeypatch.setattr(public_data, "cache_dir", lambda: tmp_path)

    def asked() -> ItemFeatures:
        return public_data.with_public_behaviour(texts, catalog, "movielens-small", 4, private, reads.append)

    first, again = asked(), asked()
    assert len(reads) == 1
    assert first.hash == again.hash
    np.testing.assert_array_equal(first.behaviour, again.behaviour)
    assert np.ptp(first.behaviour) > 0.1
    (kept,) = (tmp_path / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:-8])
    np.testing.assert_array_equal(asked().behaviour, first.behaviour)
    assert len(reads) == 2  # a damaged one is made anew
    asked()
    assert len(reads) == 2
    _, own = load_data("movielens-small", lambda _: None)
    with pytest.raises(PrivacyError, match="partners' own data"):
        public_data.with_public_behaviour(texts, catalog, "movielens-small", 4, own, reads.append)
    assert len(reads) == 2
