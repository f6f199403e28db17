"""Inputs of the click and rating heads: what a user's own rows say of an item, given what published ratings say of all.

A user's targets are seen as a Gaussian process over the catalogue. Its mean comes from published ratings and from what
items' texts say of them; its covariance says that who likes an item likes those with a like text (as the language
model and the sentence encoder read it), and those that other people had with it. All of that is public; a prediction
needs the user's own rows besides and nothing else, so it is computed beside them and costs no privacy.

What partners then learn together is how to correct the public mean: every further input says by how much the
prediction would move if the mean moved along one direction of a public basis of the items.

Reference: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equations 2.40 (fixed basis functions)
and 5.12 (leaving one out).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.data.matching import same_items
from fedrec.model.features import ItemFeatures

Array = NDArray[np.float64]
Scale = Literal["likes", "ratings"]
# Changes when the recipe changes, so that no head is read with other inputs than it was trained on.
_RECIPE = "taste/1"


@dataclass(frozen=True)
class TasteSettings:
    """Of a scale, public; chosen on validation, see docs/tasks.md.

    Attributes:
        user, text, behaviour, genre: prior variance of a user's general level, and along each kind of likeness.
        noise: variance of one target around all that.
        directions: of the basis.
    """

    user: float
    text: float
    behaviour: float
    genre: float
    noise: float
    directions: int


LIKES = TasteSettings(user=0.1, text=0.06, behaviour=0.1, genre=0.02, noise=0.2, directions=16)
RATINGS = TasteSettings(user=0.2, text=0.3, behaviour=0.5, genre=0.1, noise=0.8, directions=16)
# Public rows that pull an item towards what its text predicts, a user towards everybody; ridge of that prediction.
_ITEM_ROWS, _USER_ROWS, _TEXT_RIDGE = 10.0, 5.0, 300.0
# Stars from which a rating counts as a like; half a star below, which MovieLens-100K has not, as half of one.
LIKE_STARS = 4.0


@dataclass(frozen=True, eq=False)
class PublicTaste:
    """What is known of every user's taste before the user comes. Public.

    Attributes:
        mean: float64 `[items]`, of an average user's target, on the scale of the targets.
        factors: float64 `[items, dim]`, whose products are covariances.
        noise: variance of one target.
        basis: float64 `[items, directions]`, of corrections of the mean.
        hash: identity of catalogue, features, public rows and recipe.
    """

    mean: Array = field(repr=False)
    factors: Array = field(repr=False)
    noise: float
    basis: Array = field(repr=False)
    hash: str

    @property
    def width(self) -> int:
        """Numbers of an input: the prediction and how it moves along each direction."""
        return 1 + int(self.basis.shape[1])

    def inputs(self, items: NDArray[np.int32], targets: Array, asked: NDArray[np.int32]) -> NDArray[np.float32]:
        """What a user's rows say of other items.

        Args:
            items, targets: int32 and float64 `[rows]`, the user's own; private.
            asked: int32 `[n]`.
        Returns: float32 `[n, width]`, private.
        """
        known, wanted = self.factors[items], self.factors[asked]
        # `[n, rows]`: what each own row adds to each prediction.
        weights = np.linalg.solve(self._covariance(known), known @ wanted.T).T
        both = np.column_stack([targets - self.mean[items], self.basis[items]])
        found = np.column_stack([self.mean[asked], self.basis[asked]])
        found += weights @ both * np.array([1.0, *[-1.0] * self.basis.shape[1]])
        return found.astype(np.float32)

    def inputs_left_out(self, items: NDArray[np.int32], targets: Array) -> NDArray[np.float32]:
        """Of each own row what all the other rows of the user say of it, `[rows, width]`; private."""
        inverse = np.linalg.inv(self._covariance(self.factors[items]))
        both = np.column_stack([targets - self.mean[items], self.basis[items]])
        found = inverse @ both / np.diag(inverse)[:, None]
        found[:, 0] = targets - found[:, 0]
        return found.astype(np.float32)

    def _covariance(self, known: Array) -> Array:
        return known @ known.T + self.noise * np.eye(len(known))


def public_taste(
    catalog: ItemCatalog,
    features: ItemFeatures,
    public_catalog: ItemCatalog,
    public: Iterable[InteractionTable],
    scale: Scale,
    settings: TasteSettings,
    public_hash: str,
) -> PublicTaste:
    """Read published ratings.

    Args:
        features: of the catalogue's items, with behaviour.
        public_catalog, public: ratings of people whom no partner must protect, in pieces of whole users.
        public_hash: their identity.
    """
    counts, sums, level = _public_sums(len(catalog), same_items(catalog, public_catalog), public, scale)
    kinds, facts = _kinds(catalog), _facts(catalog, counts)
    text = _unit(features.vectors.astype(np.float64))
    expected = _expected(np.column_stack([3 * np.ones(len(catalog)), 2 * text, kinds, facts]), counts, sums)
    mean = level + (sums + _ITEM_ROWS * expected) / (counts + _ITEM_ROWS)
    behaviour = features.behaviour.astype(np.float64)
    blocks = [
        (settings.user, np.ones((len(catalog), 1))),
        (settings.text, text),
        (settings.behaviour, behaviour),
        (settings.genre, _unit(kinds)),
    ]
    factors = np.column_stack([np.sqrt(variance) * block for variance, block in blocks])
    basis = _directions(np.column_stack([facts, kinds, behaviour]), counts, settings.directions)
    told = f"{_RECIPE}|{catalog.hash}|{features.hash}|{public_hash}|{scale}|{settings}"
    return PublicTaste(mean, factors, settings.noise, basis, hashlib.sha256(told.encode()).hexdigest())


def as_targets(ratings: NDArray[np.floating], scale: Scale) -> Array:
    """Stars as targets: themselves, or 1 for a like and 0 for none."""
    stars = np.asarray(ratings, np.float64)
    if scale == "ratings":
        return stars
    return np.where(stars >= LIKE_STARS, 1.0, np.where(stars >= LIKE_STARS - 0.5, 0.5, 0.0))


def _public_sums(
    n_items: int, code: NDArray[np.int64], public: Iterable[InteractionTable], scale: Scale
) -> tuple[Array, Array, float]:
    """Rows of each item, the sum of their targets above their user's own level, and everybody's level."""
    pieces = [(piece, as_targets(piece.rating, scale)) for piece in public]
    level = float(np.mean(np.concatenate([targets for _, targets in pieces])))
    counts, sums = np.zeros(n_items), np.zeros(n_items)
    for piece, targets in pieces:
        rows = np.bincount(piece.user_codes, minlength=piece.n_users)
        total = np.bincount(piece.user_codes, targets, piece.n_users)
        own = (total + _USER_ROWS * level) / (rows + _USER_ROWS)
        items = code[piece.item_codes]
        there = items >= 0
        counts += np.bincount(items[there], minlength=n_items)
        sums += np.bincount(items[there], (targets - own[piece.user_codes])[there], n_items)
    return counts, sums, level


def _expected(described: Array, counts: Array, sums: Array) -> Array:
    """What an item's description says of it: ridge regression over the items that the public knows."""
    weights = counts / (counts + _USER_ROWS)
    found = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    gram = (described * weights[:, None]).T @ described + _TEXT_RIDGE * np.eye(described.shape[1])
    return np.asarray(described @ np.linalg.solve(gram, (described * weights[:, None]).T @ found))


def _directions(described: Array, counts: Array, n: int) -> Array:
    """The first principal directions of the items that people have, each with mean square 1."""
    weights = (counts + 1) / (counts + 1).sum()
    centred = described - weights @ described
    spread = np.sqrt(weights @ centred**2)
    centred = centred / np.maximum(spread, 1e-6)
    _, _, axes = np.linalg.svd(centred * np.sqrt(weights)[:, None], full_matrices=False)
    axes = axes[:n] * np.sign(axes[:n][np.arange(len(axes[:n])), np.abs(axes[:n]).argmax(1)])[:, None]
    found = centred @ axes.T
    return np.asarray(found / np.maximum(np.sqrt(weights @ found**2), 1e-6))


def _facts(catalog: ItemCatalog, counts: Array) -> Array:
    """Decade and how many public rows there are."""
    known = [year for year in catalog.years if year]
    middle = float(np.median(known)) if known else 0.0
    decades = [((year or middle) - middle) / 10 for year in catalog.years]
    return np.column_stack([np.clip(decades, -4.0, 1.0), np.log1p(counts) / 3])


def _kinds(catalog: ItemCatalog) -> Array:
    names = sorted({kind for kinds in catalog.categories for kind in kinds})
    return np.array([[kind in kinds for kind in names] for kinds in catalog.categories], np.float64)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
