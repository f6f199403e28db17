"""Item vectors from other people's public behaviour: what is bought together, without a row of any partner."""

from collections.abc import Iterable

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.data.matching import same_items

# Pseudo-counts that pull an item with few public users towards saying nothing.
_FEW_USERS = 5.0
_RARE_USERS = 10.0


def behaviour_vectors(
    catalog: ItemCatalog, public_catalog: ItemCatalog, public: Iterable[InteractionTable], dim: int
) -> np.ndarray:
    """Principal components of what people had together, for the items that both catalogues have.

    Args:
        catalog: the federation's own.
        public_catalog: of the published data.
        public: published interactions of people whom no partner must protect, in pieces of whole users.
        dim: components kept, the strongest first; the very first one, which is popularity, is left out.
    Returns: float32 `[items, dim]`, norm at most 1, less the fewer public users an item has; zero for items that the
        public data do not know. Memory is quadratic in the items that both have.
    Privacy: reads no private row; costs no epsilon. The statement must name the public data.
    Reference: Sarwar et al. 2000, "Application of Dimensionality Reduction in Recommender System".
    """
    code = same_items(catalog, public_catalog)
    shared = np.unique(code[code >= 0])
    place = np.full(len(code), -1)
    place[code >= 0] = np.searchsorted(shared, code[code >= 0])
    users_of_item, together = np.zeros(len(shared)), np.zeros((len(shared), len(shared)))
    for piece in public:
        there = place[piece.item_codes] >= 0
        table = np.zeros((piece.n_users, len(shared)))
        table[piece.user_codes[there], place[piece.item_codes[there]]] = 1.0
        users_of_item += table.sum(0)
        # Whoever had much says little about each pair of it.
        together += table.T @ (table / np.sqrt(np.maximum(table.sum(1), 1.0))[:, None])
    rarity = 1 / np.sqrt(users_of_item + _RARE_USERS)
    strength, components = np.linalg.eigh(together * rarity[:, None] * rarity)
    strongest = np.argsort(-strength, kind="stable")[1 : dim + 1]
    kept = components[:, strongest]
    # The sign of a component is arbitrary; the largest loading is made positive so that every machine agrees.
    signs = np.sign(kept[np.abs(kept).argmax(0), np.arange(kept.shape[1])])
    vectors = kept * signs * np.sqrt(np.maximum(strength[strongest], 0.0))
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    weight = users_of_item / (users_of_item + _FEW_USERS)
    found = np.zeros((len(catalog), vectors.shape[1]), np.float32)
    found[shared] = vectors / length * weight[:, None]
    return found
