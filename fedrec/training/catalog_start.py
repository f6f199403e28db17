"""A self-supervised start: before any private row, the adapter learns from made walks over the public catalogue.

A walk goes from item to item that share a category and whose texts are alike, as somebody might who knew nothing but
the catalogue; the adapter learns to tell the next item, as it later does from people. No row of anybody is read, so it
costs no epsilon; the statement says that training starts there.
References: Zhou et al. 2020, arXiv:2008.07873 (S3-Rec: pre-training a recommender on items' attributes); Perozzi et al.
2014, arXiv:1403.6652 (walks over a graph as sentences).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel

from fedrec.data.catalog import ItemCatalog
from fedrec.model.recommender import part_names, train_only
from fedrec.training.local import PlainSettings, train_plain

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CatalogStart:
    """Of walks and training. Public.

    Attributes:
        temperature: of the cosine of two texts: the lower, the closer a walk stays.
        share_of_categories: added to the cosine, times the share of categories that two items have in common.
    """

    walks: int = 800
    length: int = 10
    temperature: float = 0.1
    share_of_categories: float = 0.3
    epochs: int = 3
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    batch_users: int = 32


def catalog_walks(catalog: ItemCatalog, texts: Floats, settings: CatalogStart, seed: int) -> list[NDArray[np.int32]]:
    """Made histories, int32 `[length]` each, no item twice in one; begun anywhere, since nobody's choices are known.

    Args:
        texts: float32 `[items, feature_dim]`, the catalogue's text features.
        seed: public.
    """
    rng, names = np.random.default_rng([seed, 0xCA7A]), sorted({kind for kinds in catalog.categories for kind in kinds})
    kinds = np.array([[name in kinds for name in names] for kinds in catalog.categories], np.float32)
    kinds = kinds.reshape(len(catalog), len(names))
    unit = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-9)
    length = min(settings.length, len(catalog))
    walks = np.zeros((settings.walks, length), np.int32)
    walks[:, 0] = rng.integers(0, len(catalog), settings.walks)
    for step in range(1, length):
        now, before = walks[:, step - 1], walks[:, :step]
        common = kinds[now] @ kinds.T
        either = kinds[now].sum(1)[:, None] + kinds.sum(1)[None] - common
        alike = unit[now] @ unit.T + settings.share_of_categories * common / np.maximum(either, 1.0)
        alike = alike / settings.temperature + rng.gumbel(size=alike.shape)
        alike[np.arange(settings.walks)[:, None], before] = -np.inf
        walks[:, step] = alike.argmax(1)
    return list(walks)


def start_from_catalog(
    model: PeftModel, catalog: ItemCatalog, texts: Floats, seed: int, settings: CatalogStart | None = None
) -> None:
    """Train head, LoRA and projections on made walks. Prior and item vectors stay: walks have no say there.

    Privacy: reads the public catalogue alone; costs no epsilon.
    """
    settings = settings or CatalogStart()
    walks = catalog_walks(catalog, texts, settings, seed)
    names = [name for name in part_names(model, ["head", "lora", "projection"]) if ".item_emb." not in name]
    plain = PlainSettings(settings.learning_rate, settings.weight_decay, settings.batch_users, settings.length)
    train_plain(model, names, walks, plain, epochs=settings.epochs, rng=np.random.default_rng([seed, 0x57A7]))
    train_only(model, [])
