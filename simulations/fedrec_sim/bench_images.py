"""`fedrec bench images`: what pictures add to texts, and what is lost when one of the two is missing."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.config import SimulationConfig
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import made_over_stamps
from fedrec.data.interactions import InteractionTable
from fedrec.data.made_tastes import HOW, SCHEME, SHARES
from fedrec.data.media import IMAGE, ItemMedia
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import split_by
from fedrec.evaluation.protocol import Scorer, evaluate_users
from fedrec.model.adapter_folder import adapter_shape
from fedrec.model.features import ItemFeatures
from fedrec.model.fusion import TEXT, Reduction, without
from fedrec.model.recommender import AdapterShape, build_model, read_state, write_state
from fedrec.model.shared import SharedModel, load_shared, modality_vectors
from fedrec.recommend.recommender import ModelRecommender
from fedrec.rows import RowName
from fedrec_sim.rows import RowContext, run_row
from fedrec_sim.run import Run, commit_of_checkout
from fedrec_sim.world import Corpus, World

Say = Callable[[str], None]
WAYS = ("text", "image", "fused", "fused_without_image", "fused_without_text")
ROWS: dict[str, RowName] = {"no noise": "federated", "epsilon 8": "federated_dp"}
_FIGURES = ("ndcg@10", "hr@10")
_MOST_LOSS = 0.15


@dataclass(frozen=True)
class Stage:
    """One seed's made users, and the three kinds of item vectors that are trained on."""

    config: SimulationConfig
    catalog: ItemCatalog
    media: ItemMedia
    table: InteractionTable = field(repr=False)
    shared: dict[str, SharedModel] = field(repr=False)

    @classmethod
    def of(cls, config: SimulationConfig, seed: int, say: Say) -> "Stage":
        """Vectors of one width each, so that every adapter has as many parameters."""
        catalog, media, table = made_over_stamps(config.data.users, seed)
        fused = load_shared(config.model, catalog, table, say, media)
        text = load_shared(config.model.model_copy(update={"modalities": ()}), catalog, table, say)
        (pictures,) = modality_vectors(config.model, media, say)
        vectors = Reduction.fit(pictures, config.model.feature_dim).of(pictures)
        alone = ItemFeatures.of_text(vectors, text.features.word_tokens, f"image alone|{pictures.made_from}")
        return cls(
            config, catalog, media, table, {"text": text, "image": replace(text, features=alone), "fused": fused}
        )

    def features(self, way: str) -> ItemFeatures:
        """What a way knows of the items when it is asked."""
        fused = self.shared["fused"].features
        match way:
            case "fused_without_image":
                return without(fused, IMAGE)
            case "fused_without_text":
                return without(fused, TEXT)
            case _:
                return self.shared[way].features

    def world(self, way: str) -> World:
        """For the ladder's own rows; a gate needs two modalities."""
        config = self.config if way == "fused" else _ungated(self.config)
        return World(config, self.catalog, self.table, self.shared[way])


def _ungated(config: SimulationConfig) -> SimulationConfig:
    plain, private = (
        one.model_copy(update={"shape": one.shape.model_copy(update={"gate_dim": 0, "modality_masking": 0.0})})
        for one in (config.plain, config.private)
    )
    return config.model_copy(update={"plain": plain, "private": private})


def measure(
    config: SimulationConfig, seeds: Sequence[int], command: str, say: Say, kinds: Sequence[str] = tuple(ROWS)
) -> dict[str, Any]:
    """Train text, image and fused for every seed, with and without noise; ask fused without one of them too.

    Args:
        kinds: of `ROWS`.
    Returns: what `fedrec bench images --json` prints.
    """
    stages = {seed: Stage.of(config, seed, say) for seed in seeds}
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for kind in kinds:
        found[kind] = {way: [] for way in WAYS}
        for seed, stage in stages.items():
            for way in ("text", "image", "fused"):
                for asked, figures in _trained(stage, way, ROWS[kind], seed).items():
                    found[kind][asked].append(figures)
                    say(f"{kind}, seed {seed}, {asked}: NDCG@10 {figures['ndcg@10']:.4f}")
    stage = stages[seeds[0]]
    of_kind = {kind: {way: _over_seeds(runs) for way, runs in ways.items()} for kind, ways in found.items()}
    likeness = {way: category_precision(stage.features(way).vectors, stage.catalog) for way in WAYS}
    return {
        "data": {"items": "Debian's captioned stamps", "users": HOW, "scheme": SCHEME, "taste_shares": dict(SHARES)},
        "made": True,
        "n_items": len(stage.catalog),
        "n_users": config.data.users,
        "protocol": "B",
        "seeds": list(seeds),
        "command": command,
        "commit": commit_of_checkout(),
        "epsilon": config.private.epsilon,
        "category_precision@5": likeness,
        **{way: figures["ndcg@10"] for way, figures in of_kind.get("no noise", {}).items()},
        **{f"{way}_eps8": figures["ndcg@10"] for way, figures in of_kind.get("epsilon 8", {}).items()},
        "ways": of_kind,
        "checks": {kind: _checks(ways) for kind, ways in found.items()},
    }


def _trained(stage: Stage, way: str, row: RowName, seed: int) -> dict[str, dict[str, float]]:
    """Test figures of a way, and of fused as it stands without one modality: the same adapter, other vectors."""
    world, kept = stage.world(way), list[Scorer]()
    corpus = Corpus.of(split_by("B", build_sequences(stage.table, seed), seed), len(stage.catalog))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), world.config, "bench images", "", "")
        context = RowContext(world, corpus, run, row, seed, lambda _: None, lambda: False, on_scorer=kept.append)
        result = run_row(context)
    figures = {way: {name: float(result["test"][name]) for name in _FIGURES}}
    scorer = kept[-1]
    if way == "fused" and isinstance(scorer, ModelRecommender):
        for asked in ("fused_without_image", "fused_without_text"):
            other = over_features(scorer, world.shared, stage.features(asked))
            sums = evaluate_users(other, corpus.splits, "test", n_items=len(stage.catalog), tie_seed=seed).sums()
            figures[asked] = {name: float(sums.means()[name]) for name in _FIGURES}
    return figures


def over_features(scorer: ModelRecommender, shared: SharedModel, features: ItemFeatures) -> ModelRecommender:
    """A trained adapter that is asked with other item vectors."""
    state, shape = read_state(scorer.model), adapter_shape(scorer.model)
    model = _built(replace(shared, features=features), shape)
    write_state(model, state)
    return ModelRecommender(model, scorer.max_history)


def _built(shared: SharedModel, shape: AdapterShape) -> Any:
    from fedrec.model.backbone import load_backbone

    weights = next(shared.backbone.module.parameters())
    backbone = load_backbone(shared.folder, shared.config.layers, weights.device, weights.dtype)
    return build_model(backbone, shared.features, shape, 0)


def category_precision(vectors: NDArray[np.float32], catalog: ItemCatalog, k: int = 5) -> float:
    """Of each item's k nearest by cosine, the mean share in its own category (the first one)."""
    centred = vectors - vectors.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    category = np.unique([some[0] for some in catalog.categories], return_inverse=True)[1]
    return float((category[nearest] == category[:, None]).mean())


def _over_seeds(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _FIGURES:
        values = [one[name] for one in runs]
        found[name] = statistics.fmean(values)
        found[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
        found[f"{name}_by_seed"] = values
    return found


def _checks(ways: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What is to hold: ratios of means over seeds, and in how many seeds each held."""
    mean = {way: statistics.fmean(one["ndcg@10"] for one in runs) for way, runs in ways.items()}
    seeds = list(zip(*(ways[way] for way in ("fused", "text", "image")), strict=True))
    ahead = [one["ndcg@10"] > max(text["ndcg@10"], image["ndcg@10"]) for one, text, image in seeds]
    losses = {way: 1 - mean[way] / mean["fused"] for way in ("fused_without_image", "fused_without_text")}
    return {
        "fused_over_text": mean["fused"] / mean["text"],
        "fused_over_image": mean["fused"] / mean["image"],
        "seeds_with_fused_ahead": sum(ahead),
        "loss": losses,
        "passed": mean["fused"] > max(mean["text"], mean["image"]) and max(losses.values()) < _MOST_LOSS,
    }
