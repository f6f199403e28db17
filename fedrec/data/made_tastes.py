"""Made users over items with captions, folders and pictures: what they like is stated here, and no encoder is asked.

Two thirds of a taste can be told from a caption, and about as much from a picture: folders from both, words from
captions alone, and colour, detail and outline, measured in the pixels, from pictures alone.
"""

import colorsys
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.columns import write_parquet_parts
from fedrec.data.interactions import BY_USER, InteractionTable, stored_columns
from fedrec.errors import DataError

SCHEME = "stated-tastes-1"
"""Changes whenever the same seed would make other users."""

HOW = "made users with stated tastes over Debian's stamps"
SHARES = MappingProxyType(
    {"category": 0.25, "folder": 0.2, "word": 0.25, "colour": 0.15, "detail": 0.1, "outline": 0.05}
)
"""Of the variance of what a user likes, by what it is about. Stated before anything was trained, and never tuned."""

_SHARPNESS, _POPULARITY = 2.5, 0.7
_FEWEST, _MOST = 10, 40
_WORD_ITEMS = (4, 200)
_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
_HUE_EDGES = np.array([15, 45, 70, 165, 195, 260, 300, 345]) / 360
_DAY_S = 86_400.0

Attributes = dict[str, NDArray[np.float64]]


def attributes_of(catalog: ItemCatalog, pictures: Sequence[bytes | None]) -> Attributes:
    """What tastes are about, `[items, values]` each.

    Args:
        catalog: the first category is the top folder; all of them together name the folder.
        pictures: of every item.
    Raises: DataError: a picture is missing or cannot be read.
    """
    facts = [_pixels(picture) for picture in pictures]
    detail = np.array([fact[1] for fact in facts])
    words = [set(re.findall(r"[a-z]+", text.lower())) for text in catalog.texts]
    counts = {word: sum(word in some for some in words) for word in set().union(*words)}
    vocabulary = sorted(word for word, n in counts.items() if _WORD_ITEMS[0] <= n <= _WORD_ITEMS[1])
    said = np.array([[float(word in some) for word in vocabulary] for some in words])
    return {
        "category": _one_hot([some[0] for some in catalog.categories]),
        "folder": _one_hot(["/".join(some) for some in catalog.categories]),
        "word": said / np.sqrt(np.maximum(said.sum(1, keepdims=True), 1.0)),
        "colour": _one_hot([fact[0] for fact in facts]),
        "detail": _one_hot([str(rank) for rank in np.searchsorted(np.quantile(detail, [1 / 3, 2 / 3]), detail)]),
        "outline": _one_hot(["tall" if f[2] < 0.75 else "wide" if f[2] > 4 / 3 else "square" for f in facts]),
    }


def _one_hot(values: Sequence[str]) -> NDArray[np.float64]:
    codes = np.unique(values, return_inverse=True)[1]
    return np.eye(int(codes.max()) + 1)[codes]


def _pixels(content: bytes | None) -> tuple[str, float, float]:
    """Dominant colour, share of distinct colours (a photograph has many, a drawing few), and width over height."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(content or b"")).convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError("a picture is missing or cannot be read", "fetch the stamps anew") from error
    outline = picture.width / picture.height
    picture.thumbnail((64, 64), Image.Resampling.NEAREST)
    pixels = np.asarray(picture).reshape(-1, 4)
    colours = pixels[pixels[:, 3] > 128, :3].astype(np.float64)
    if not len(colours):
        return "light", 0.0, outline
    distinct = len(np.unique((colours // 8).astype(np.int64) @ [1024, 32, 1])) / len(colours)
    return _colour(colours / 255), distinct, outline


def _colour(colours: NDArray[np.float64]) -> str:
    """The commonest hue of `[pixels, 3]`; how bright it is where little has a hue."""
    brightest, darkest = colours.max(1), colours.min(1)
    coloured = (brightest - darkest > 0.25 * brightest) & (brightest > 0.2)
    if coloured.mean() < 0.25:
        bright = float(brightest.mean())
        return "dark" if bright < 0.4 else "light" if bright > 0.8 else "grey"
    hues = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours[coloured]])
    return _HUES[int(np.bincount(np.searchsorted(_HUE_EDGES, hues) % len(_HUES), minlength=len(_HUES)).argmax())]


def made_liking(attributes: Attributes, users: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How much each made user likes every item, `[items]`, in nats: the truth behind `made_table`."""
    rng = np.random.default_rng([seed, 1])
    n_items = len(next(iter(attributes.values())))
    popular = _POPULARITY * rng.standard_normal(n_items)
    for _ in range(users):
        liking = np.zeros(n_items)
        for name, share in SHARES.items():
            taste = attributes[name] @ rng.standard_normal(attributes[name].shape[1])
            liking += np.sqrt(share) * (taste - taste.mean()) / max(float(taste.std()), 1e-9)
        yield _SHARPNESS * liking + popular


def made_table(catalog: ItemCatalog, attributes: Attributes, users: int, seed: int) -> InteractionTable:
    """Users `m0000`, `m0001`, ..., each with 10 to 40 items, drawn without return by how much they are liked.

    Args:
        users: at most 10,000.
        seed: the same seed makes the same users.
    """
    rng = np.random.default_rng([seed, 2])
    most = min(_MOST, len(catalog) - 1)
    owners, found = list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    for user, liking in enumerate(made_liking(attributes, users, seed)):
        length = int(rng.integers(min(_FEWEST, most), most + 1))
        drawn = np.argsort(-(liking + rng.gumbel(size=len(liking))), kind="stable")[:length]
        # In any order: what is liked most does not come first.
        found.append(rng.permutation(drawn).astype(np.int32))
        owners.append(np.full(length, user, np.int32))
    places = np.concatenate([np.arange(len(one)) for one in found])
    items = np.concatenate(found)
    return InteractionTable(
        np.concatenate(owners),
        items,
        np.full(len(items), np.nan, np.float32),
        1.6e9 + _DAY_S * places.astype(np.float64),
        tuple(f"m{user:04d}" for user in range(users)),
        catalog.ids,
    )


def write_made(table: InteractionTable, path: Path, seed: int) -> None:
    """Write made users as Parquet, marked as made. Raises StorageError."""
    made = {"how": HOW, "scheme": SCHEME, "users": table.n_users, "seed": seed}
    facts = {**BY_USER, "content": "interactions", "hash": table.hash, "generated": json.dumps(made, sort_keys=True)}
    write_parquet_parts(path, [stored_columns(table)], lambda: facts)
