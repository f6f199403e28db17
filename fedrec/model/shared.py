"""The frozen parts that every partner shares, by name: backbone and item features, fetched or made once a machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from fedrec.config import ModelConfig, ShapeConfig
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Interactions, Say
from fedrec.data.media import IMAGE, ItemMedia, ModalityVectors
from fedrec.data.sources import cache_dir, fetch, list_sources
from fedrec.errors import ModelError
from fedrec.model.backbone import Backbone, convert_gguf, load_backbone, pick_device, pick_dtype
from fedrec.model.features import ItemFeatures, TextEncoder, item_features
from fedrec.model.fusion import Fusion, fused_features, text_dim
from fedrec.model.public_data import with_public_behaviour
from fedrec.model.recommender import AdapterShape, build_model
from fedrec.model.sentences import SentenceEncoder

NOTHING = ItemMedia()


@dataclass(frozen=True)
class SharedModel:
    """What an adapter is put on. Public.

    Attributes:
        folder: of the backbone.
        config: by which it was loaded.
        fusion: how text and other modalities were put together; None where text is all.
    """

    config: ModelConfig
    folder: Path
    backbone: Backbone = field(repr=False)
    features: ItemFeatures = field(repr=False)
    fusion: Fusion | None = field(default=None, repr=False)

    def later_items(self, catalog: ItemCatalog) -> Callable[[Sequence[str]], NDArray[np.float32]]:
        """Encodes texts of items that came after the catalogue: float32 `[texts, feature_dim]`; other modalities are
        absent.
        """
        config, fusion = self.config, self.fusion
        dim = fusion.layout.columns.count(0) if fusion else config.feature_dim
        folders = (self.folder, encoder_folder(config))
        encoder = TextEncoder(catalog, *folders, layer=config.feature_layer, dim=dim, cache=cache_dir())
        if fusion is None:
            return encoder.encode
        return lambda texts: fusion.fuse(encoder.encode(texts), {})

    def with_adapter(self, shape: ShapeConfig, seed: int) -> PeftModel:
        """A fresh adapter around the frozen backbone. LoRA layers of an earlier adapter are taken off first."""
        device = pick_device(self.config.device)
        dtype = next(self.backbone.module.parameters()).dtype
        backbone = load_backbone(self.folder, self.config.layers, device, dtype)
        return build_model(backbone, self.features, AdapterShape(**shape.model_dump()), seed).to(device)


def load_shared(
    config: ModelConfig,
    catalog: ItemCatalog,
    own: Interactions | None,
    say: Say = lambda _: None,
    media: ItemMedia = NOTHING,
) -> SharedModel:
    """Fetch (or take from the cache) and load; this process gets the configuration's threads.

    Args:
        own: the rows of whoever loads it, which must not be the public data; None: whoever loads it has none.
        media: of the catalogue's items, where `config.modalities` names any.
    Raises:
        ConfigError: a modality that the media lack.
        ModelError: an unknown model, or a device that this machine lacks.
        PrivacyError: the public data are the owner's rows.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    folder = model_folder(config.backbone, say)
    backbone = load_backbone(folder, config.layers, device, pick_dtype(config.dtype, device))
    say(f"reading the catalogue's {len(catalog)} texts")
    extras = modality_vectors(config, media, say)
    encoder, layer, dim = encoder_folder(config), config.feature_layer, text_dim(config.feature_dim, extras)
    features = item_features(catalog, folder, encoder, layer=layer, dim=dim, cache=cache_dir())
    fusion = None
    if extras:
        features, fusion = fused_features(features, extras, config.feature_dim)
    if config.public_data != "none":
        features = with_public_behaviour(features, catalog, config.public_data, config.public_dim, own, say)
    return SharedModel(config, folder, backbone, features, fusion)


def modality_vectors(config: ModelConfig, media: ItemMedia, say: Say = lambda _: None) -> list[ModalityVectors]:
    """The vectors of `config.modalities`: pictures are read once and kept in the cache, owners' vectors are theirs."""
    found = []
    for name in config.modalities:
        if name != IMAGE or media.images is None:
            found.append(media.column(name))
            continue
        from fedrec.model.images import image_vectors  # needs Pillow, which text alone does not

        named = sum(one is not None for one in media.images.pictures)
        found.append(image_vectors(media.images, model_folder(config.image_encoder, say), cache_dir()))
        there = int(found[-1].present.sum())
        lost = f", {named - there} damaged" if named > there else ""
        say(f"pictures of {there} of {len(found[-1].present)} items{lost}")
    return found


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
