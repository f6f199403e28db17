"""The frozen parts that every partner shares, by name: backbone and item features, fetched or made once a machine."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel

from fedrec.config import ModelConfig, ShapeConfig
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Interactions, Say
from fedrec.data.sources import cache_dir, fetch, list_sources
from fedrec.errors import ModelError
from fedrec.model.backbone import Backbone, convert_gguf, load_backbone, pick_device, pick_dtype
from fedrec.model.features import ItemFeatures, item_features
from fedrec.model.public_data import with_public_behaviour
from fedrec.model.recommender import AdapterShape, build_model
from fedrec.model.sentences import SentenceEncoder


@dataclass(frozen=True)
class SharedModel:
    """What an adapter is put on. Public.

    Attributes:
        folder: of the backbone.
        config: by which it was loaded.
    """

    config: ModelConfig
    folder: Path
    backbone: Backbone = field(repr=False)
    features: ItemFeatures = field(repr=False)

    def with_adapter(self, shape: ShapeConfig, seed: int) -> PeftModel:
        """A fresh adapter around the frozen backbone. LoRA layers of an earlier adapter are taken off first."""
        device = pick_device(self.config.device)
        dtype = next(self.backbone.module.parameters()).dtype
        backbone = load_backbone(self.folder, self.config.layers, device, dtype)
        return build_model(backbone, self.features, AdapterShape(**shape.model_dump()), seed).to(device)


def load_shared(
    config: ModelConfig, catalog: ItemCatalog, own: Interactions | None, say: Say = lambda _: None
) -> SharedModel:
    """Fetch (or take from the cache) and load; this process gets the configuration's threads.

    Args:
        own: the rows of whoever loads it, which must not be the public data; None: whoever loads it has none.
    Raises:
        ModelError: an unknown model, or a device that this machine lacks.
        PrivacyError: the public data are the owner's rows.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    folder = model_folder(config.backbone, say)
    backbone = load_backbone(folder, config.layers, device, pick_dtype(config.dtype, device))
    say(f"reading the catalogue's {len(catalog)} texts")
    encoder, layer, dim = encoder_folder(config), config.feature_layer, config.feature_dim
    features = item_features(catalog, folder, encoder, layer=layer, dim=dim, cache=cache_dir())
    if config.public_data != "none":
        features = with_public_behaviour(features, catalog, config.public_data, config.public_dim, own, say)
    return SharedModel(config, folder, backbone, features)


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


def sentences_of(config: ModelConfig) -> SentenceEncoder | None:
    """The sentence encoder by itself, loaded when it is first asked; None: the model has none."""
    folder = encoder_folder(config)
    return None if folder is None else SentenceEncoder(folder)
