"""How well the screen finds what it should: on made labelled texts, and on the catalogue of a run."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.model.sentences import SentenceEncoder
from fedrec.recommend.shelf import Item
from fedrec.safety.screen import LIKE, Screen
from fedrec.safety.wordlist import default_safety

_GRID = np.round(np.arange(0.2, 0.71, 0.01), 2)


def screening(encoder: SentenceEncoder, catalog: ItemCatalog) -> dict[str, Any]:
    """Threshold by validation, figures on the other half, and what of the catalogue a person would have to see."""
    told = tomllib.loads((files("fedrec_sim.fairness") / "labelled.toml").read_text(encoding="utf-8"))
    screen = Screen(default_safety(), by_themes=True, sentences=encoder.encode)
    likeness = {kind: screen.likeness(told[kind]).max(1) for kind in ("harmful", "fine")}
    halves = {name: {kind: half(values, name) for kind, values in likeness.items()} for name in ("validation", "test")}
    tried = {float(like): _figures(halves["validation"], float(like)) for like in _GRID}
    items = [
        Item(name, title, text, kinds)
        for name, title, text, kinds in zip(catalog.ids, catalog.titles, catalog.texts, catalog.categories, strict=True)
    ]
    flagged = [(item, flags) for item, flags in zip(items, screen.flags(items), strict=True) if flags]
    worded = Screen(default_safety()).flags([Item(str(at), text) for at, text in enumerate(told["harmful"])])
    return {
        "texts": "made, labelled by the author",
        "threshold": LIKE,
        "chosen": max(tried, key=lambda like: (tried[like]["f1"], like)),
        "validation": tried[LIKE],
        "test": _figures(halves["test"], LIKE),
        "found_by_words_alone": sum(map(bool, worded)) / len(worded),
        "catalogue": {
            "items": len(items),
            "flagged": len(flagged),
            "titles": [item.title for item, _ in flagged][:20],
        },
    }


def half(values: Sequence[float], name: str) -> list[float]:
    """The first half of each list chooses, the second tells."""
    middle = len(values) // 2
    return list(values[:middle] if name == "validation" else values[middle:])


def _figures(likeness: dict[str, list[float]], like: float) -> dict[str, float]:
    hit, false = (sum(bool(value >= like) for value in likeness[kind]) for kind in ("harmful", "fine"))
    precision = hit / (hit + false) if hit + false else 0.0
    recall = hit / len(likeness["harmful"])
    f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "texts": sum(map(len, likeness.values()))}
