"""Item vectors from other people's public behaviour: what is bought together, without a row of any partner."""

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.data.matching import same_items

# Pseudo-counts that pull an item with few public users towards saying nothing.
_FEW_USERS = 5.0
_RARE_USERS = 10.0


def behaviour_vectors(
    catalog: ItemCatalog, public_catalog: ItemCatalog, public: InteractionTable, dim: int
) -> np.ndarray:
    """Singular vectors of public interactions, for the items that both catalogues have.

    Args:
        catalog: the federation's own.
        public_catalog, public: a published data set, of people whom no partner must protect.
        dim: components kept, the strongest first; the very first one, which is popularity, is left out.
    Returns: float32 `[items, dim]`, norm at most 1, less the fewer public users an item has; zero for items that the
        public data do not know.
    Privacy: reads no private row; costs no epsilon. The statement must name the public data.
    Reference: Sarwar et al. 2000, "Application of Dimensionality Reduction in Recommender System".
    """
    code = same_items(catalog, public_catalog)[public.item_codes]
    table = np.zeros((public.n_users, len(catalog)), np.float64)
    table[public.user_codes[code >= 0], code[code >= 0]] = 1.0
    users_of_item, items_of_user = table.sum(0), table.sum(1)
    scaled = table / np.maximum(items_of_user, 1.0)[:, None] ** 0.25 / np.sqrt(users_of_item + _RARE_USERS)
    _, strength, components = np.linalg.svd(scaled, full_matrices=False)
    kept = components[1 : dim + 1]
    # The sign of a component is arbitrary; the largest loading is made positive so that every machine agrees.
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(1)])
    vectors = (kept * signs[:, None] * strength[1 : dim + 1, None]).T
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    weight = users_of_item / (users_of_item + _FEW_USERS)
    unit: np.ndarray = (vectors / length * weight[:, None]).astype(np.float32)
    return unit
