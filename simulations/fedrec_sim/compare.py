"""How like two data sets are: the popularity curve, quantiles of history lengths, and what simple recommenders find."""

from typing import Any

import numpy as np

from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Interactions, generated_from
from fedrec.data.sequences import build_sequences
from fedrec.data.splits import leave_one_out
from fedrec.data.stored import StoredInteractions
from fedrec.evaluation.baselines.linear import EASE, ItemKNN, Popularity
from fedrec.evaluation.protocol import evaluate

_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_MOST_POPULAR = (0.01, 0.05, 0.1, 0.3)
# The same untuned settings for both.
_NEIGHBOURS, _SHRINK, _L2 = 50, 10.0, 300.0


def portrait(table: Interactions, catalog: ItemCatalog, seed: int = 1) -> dict[str, Any]:
    """Figures of one data set. Private where the data are: nothing is noised.

    Returns: HR@10 by protocol B, full ranking, of three recommenders with fixed settings, beside what the data are.
    """
    stored = isinstance(table, StoredInteractions)
    sequences = table.sequences(seed) if stored else build_sequences(table, seed)  # type: ignore[union-attr, arg-type]
    splits, n_items = leave_one_out(sequences), len(catalog)
    counts = np.bincount(np.concatenate([s.items for s in sequences]), minlength=n_items)
    ordered = np.sort(counts)[::-1] / counts.sum()
    gaps = np.concatenate([np.diff(sequence.timestamps) for sequence in sequences])
    popularity = np.bincount(np.concatenate([split.train for split in splits]), minlength=n_items)
    known = [split.history("test") for split in splits]
    scorers: dict[str, Popularity | ItemKNN | EASE] = {
        "popularity": Popularity(),
        "item_knn": ItemKNN(_NEIGHBOURS, _SHRINK),
        "ease": EASE(_L2),
    }
    found = {
        name: evaluate(
            scorer.fit(known, n_items),
            splits,
            "test",
            protocol="B",
            n_items=n_items,
            tie_seed=seed,
            popularity=popularity,
        ).means["hr@10"]
        for name, scorer in scorers.items()
    }
    return {
        "generated": generated_from(table),
        "users": table.n_users,
        "interactions": table.n_rows,
        "length_quantiles": dict(
            zip(map(str, _QUANTILES), np.quantile([*map(len, sequences)], _QUANTILES), strict=True)
        ),
        "share_of_most_popular": {str(p): float(ordered[: round(p * n_items)].sum()) for p in _MOST_POPULAR},
        "items_never_seen": int((counts == 0).sum()),
        "same_second_as_the_item_before": float((gaps == 0).mean()),
        "median_span_s": float(np.median([s.timestamps[-1] - s.timestamps[0] for s in sequences])),
        "hr@10": found,
    }
