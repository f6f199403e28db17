"""What every row of a simulation shares: data, frozen model, item features. Loaded once a process."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from fedrec.config import ModelConfig, ShapeConfig, SimulationConfig
from fedrec.data.catalog import ItemCatalog, read_stored_catalog
from fedrec.data.interactions import InteractionTable, read_stored_interactions
from fedrec.data.sequences import UserSequence, build_sequences
from fedrec.data.sources import cache_dir, fetch, list_sources, load_ml100k
from fedrec.data.splits import EvaluationSplit, split_by
from fedrec.errors import ConfigError, ModelError
from fedrec.model.backbone import Backbone, convert_gguf, load_backbone, pick_device, pick_dtype
from fedrec.model.features import ItemFeatures, item_features
from fedrec.model.recommender import AdapterShape, build_model

Say = Callable[[str], None]


@dataclass(frozen=True)
class Corpus:
    """One seed's view of the data: ties in time are broken by the seed. Private.

    Attributes:
        splits: by the configuration's protocol, one per user.
        histories: int32 training codes per user, in the same order; empty for who came after training.
        popularity: interactions per item in training, `[items]`.
    """

    splits: list[EvaluationSplit] = field(repr=False)
    histories: list[np.ndarray] = field(repr=False)
    popularity: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, splits: list[EvaluationSplit], n_items: int) -> "Corpus":
        """The view that splits give."""
        histories = [split.train for split in splits]
        popularity = np.bincount(np.concatenate(histories), minlength=n_items).astype(np.float64)
        return cls(splits, histories, popularity)

    def trained_on(self, users: Iterable[int]) -> list[np.ndarray]:
        """Histories of those of the users who have one: the others are nobody's users while training goes on."""
        return [self.histories[user] for user in users if len(self.histories[user])]

    @property
    def n_trained(self) -> int:
        """Users with a training history."""
        return sum(len(history) > 0 for history in self.histories)


@dataclass(frozen=True)
class World:
    """Data and frozen model of a simulation."""

    config: SimulationConfig
    catalog: ItemCatalog
    table: InteractionTable = field(repr=False)
    backbone: Backbone = field(repr=False)
    features: ItemFeatures = field(repr=False)

    def sequences(self, seed: int) -> list[UserSequence]:
        """Every user's whole history, ties in time broken by the seed."""
        return build_sequences(self.table, seed)

    def corpus(self, seed: int) -> Corpus:
        """Split the data for one seed by the configuration's protocol."""
        return Corpus.of(split_by(self.config.evaluation.protocol, self.sequences(seed), seed), len(self.catalog))

    def model(self, shape: ShapeConfig, seed: int) -> PeftModel:
        """A fresh adapter around the shared frozen backbone. LoRA layers of an earlier adapter are taken off first."""
        adapter_shape = AdapterShape(**shape.model_dump())
        backbone = load_backbone(
            model_folder(self.config.model.backbone, lambda _: None),
            self.config.model.layers,
            pick_device(self.config.model.device),
            next(self.backbone.module.parameters()).dtype,
        )
        return build_model(backbone, self.features, adapter_shape, seed).to(pick_device(self.config.model.device))


def settle_hardware(config: SimulationConfig) -> SimulationConfig:
    """`auto` and 0 replaced by what this machine has, once a run: a resumed run needs the same for the same bits.

    The dtype is measured, and sums depend on how many threads share them.

    Raises: ModelError: a device that this machine lacks.
    """
    device = pick_device(config.model.device)
    dtype = str(pick_dtype(config.model.dtype, device)).removeprefix("torch.")
    threads = config.model.threads or max(1, torch.get_num_threads() // config.jobs)
    settled = {"device": device.type, "dtype": dtype, "threads": threads}
    return config.model_copy(update={"model": config.model.model_copy(update=settled)})


def on_any_device(config: SimulationConfig) -> SimulationConfig:
    """For reading a run's adapter: not only on a machine with the device that it was trained on."""
    return config.model_copy(update={"model": config.model.model_copy(update={"device": "auto"})})


def load_world(config: SimulationConfig, say: Say = lambda _: None) -> World:
    """Fetch (or take from the cache) and load everything that the rows share; this process gets the run's threads."""
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    catalog, table = load_data(config.data.source, say)
    device = pick_device(config.model.device)
    folder = model_folder(config.model.backbone, say)
    backbone = load_backbone(folder, config.model.layers, device, pick_dtype(config.model.dtype, device))
    say(f"reading the catalogue's {len(catalog)} texts")
    features = item_features(
        catalog,
        folder,
        encoder_folder(config.model),
        layer=config.model.feature_layer,
        dim=config.model.feature_dim,
        cache=cache_dir(),
    )
    return World(config, catalog, table, backbone, features)


def load_data(source: str, say: Say) -> tuple[ItemCatalog, InteractionTable]:
    """A known data set, or a folder written by `fedrec data import`."""
    if source == "ml-100k":
        say("MovieLens-100K")
        return load_ml100k(fetch("ml-100k"))
    folder = Path(source)
    if not folder.is_dir():
        known = ", ".join(s.name for s in list_sources() if s.kind == "data")
        raise ConfigError(f"data.source {source!r} is neither a folder nor one of: {known}", "run `fedrec data import`")
    catalog = read_stored_catalog(folder / "catalog.parquet")
    return catalog, read_stored_interactions(folder / "interactions.parquet", catalog)


def model_folder(name: str, say: Say) -> Path:
    """A known model, fetched and converted once, or a Hugging Face folder. A folder cannot pass for a known model."""
    if name not in {s.name for s in list_sources() if s.kind == "model"}:
        if Path(name).is_dir():
            return Path(name)
        raise ModelError(f"model {name!r} is neither a folder nor known", "see `fedrec model list`")
    say(f"{name}")
    folder = fetch(name)
    ggufs = sorted(folder.glob("*.gguf"))
    return convert_gguf(ggufs[0], cache_dir() / "converted" / name) if ggufs else folder


def encoder_folder(config: ModelConfig) -> Path | None:
    """The sentence encoder's folder, or None."""
    return None if config.sentence_encoder == "none" else model_folder(config.sentence_encoder, lambda _: None)
