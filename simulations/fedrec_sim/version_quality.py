"""How good a coordinator's committed versions are, by rows that somebody published: no partner's row is read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedrec.config import ProtocolName
from fedrec.data.catalog import ItemCatalog
from fedrec.data.datasets import Say, generated_from, load_data
from fedrec.data.matching import same_items
from fedrec.data.sequences import UserSequence, build_sequences
from fedrec.data.splits import EvaluationSplit, split_by
from fedrec.errors import ConfigError, ModelError
from fedrec.evaluation.protocol import Scorer, evaluate
from fedrec.model.recommender import write_state
from fedrec.model.shared import load_shared
from fedrec.recommend.recommender import ModelRecommender
from fedrec_client.importing import read_catalog_bytes
from fedrec_server.admin.administration import roll_back, set_paused
from fedrec_server.settings import Coordinator
from fedrec_server.state.quality_book import Quality, QualityBook

_PROTOCOL: ProtocolName = "B"  # the last item of each user is to be found among all that it has not had
_SEED = 11


def measure_versions(coordinator: Coordinator, data: str, *, rounds: Sequence[int], say: Say) -> Iterator[Quality]:
    """Measure committed versions, keep what was found for the admin pages, and hand each out as it is there.

    Args:
        data: a known data set, or a folder of `fedrec data import`; its items are found by title and year.
        rounds: of the versions; empty: all that were not measured on the data yet.
    Raises: ConfigError: nobody published the data, or shares no item; or versions of a task's head. ModelError: other
        model files than the terms name. RunError: no such version, or damaged.
    Privacy: reads published rows alone, and costs no epsilon. Where the frozen item vectors were made of the same
        rows (`model.public_data`), the level is flattered: compare rounds by it, not systems.
    """
    terms, catalog = coordinator.federation().terms, read_catalog_bytes(coordinator.federation().catalog)
    if terms.task is not None:
        raise ConfigError(
            f"{terms.name} trains a task's head, which ranks nothing",
            "partners ask it about rows that they held back: flower-client evaluate",
        )
    splits = split_by(_PROTOCOL, published_sequences(catalog, data, say), _SEED)
    shared = load_shared(terms.model.config, catalog, None, say)
    if (shared.backbone.hash, catalog.hash) != (terms.model.backbone_hash, terms.model.catalog_hash):
        raise ModelError("this machine has another model than the terms name", "fetch the same one")
    model = shared.with_adapter(terms.model.shape, terms.seed)
    book, name = QualityBook(coordinator.database), Path(data).name
    for number in rounds or _unmeasured(coordinator, name):
        state = coordinator.registry.load(number)
        write_state(model, state)
        found = quality_of(
            ModelRecommender(model, terms.work.max_history), splits, len(catalog), adapter=state.hash, data=name
        )
        book.note(found, who="cli")
        yield found


def roll_back_below(coordinator: Coordinator, data: str, share: float) -> dict[str, object] | None:
    """A gate on what sums under masks, of which nobody sees the parts, have made of the adapter.

    If the newest version is worth less than a share of the best one's NDCG@10, pause and let the best one count
    again; partners follow. Rounds stay paused until a person has looked.

    Args:
        data: on which all versions have been measured.
        share: above 0, below 1.
    Returns: what was done, or None.
    Raises: ConfigError: a share out of range, or the newest version is not measured. As `roll_back`.
    """
    if not 0 < share < 1:
        raise ConfigError(f"a share of {share:g} is no gate", "name one between 0 and 1, as 0.8")
    registry, known = coordinator.registry, QualityBook(coordinator.database).by_adapter()
    ndcg = {
        number: found.ndcg
        for number in range(registry.head_round() + 1)
        if (found := known.get(registry.version(number).adapter_hash)) is not None and found.data == data
    }
    newest = registry.head_round()
    if newest not in ndcg:
        raise ConfigError(f"round {newest} was not measured on {data}", "measure it first")
    best = max(ndcg, key=lambda number: (ndcg[number], number))
    if ndcg[newest] >= share * ndcg[best]:
        return None
    set_paused(coordinator, True, who="cli")
    roll_back(coordinator, best, who="cli")
    return {"rolled_back_from": newest, "to": best, "ndcg": ndcg[newest], "best_ndcg": ndcg[best]}


def quality_of(scorer: Scorer, splits: Sequence[EvaluationSplit], n_items: int, *, adapter: str, data: str) -> Quality:
    """HR@10 and NDCG@10 of the users' last items, full ranking."""
    nothing = np.ones(n_items)  # of users an item; only for novelty, which is not kept
    report = evaluate(scorer, splits, "test", protocol=_PROTOCOL, n_items=n_items, tie_seed=_SEED, popularity=nothing)
    return Quality(adapter, data, report.protocol, report.n_users, report.means["hr@10"], report.means["ndcg@10"])


def published_sequences(catalog: ItemCatalog, data: str, say: Say) -> list[UserSequence]:
    """Histories of the published data in the codes of a catalogue; items that it lacks are left out.

    Raises: ConfigError: made users, or no item in common.
    """
    theirs, table = load_data(data, say)
    if generated_from(table):
        raise ConfigError(f"{data}: holds made users", "name a data set of real people")
    code = same_items(catalog, theirs)
    sequences = [
        UserSequence(one.user, code[one.items[kept]].astype(np.int32), one.timestamps[kept])
        for piece in table.tables()
        for one in build_sequences(piece, _SEED)
        for kept in (code[one.items] >= 0,)
    ]
    found = [one for one in sequences if len(one) >= 3]
    if not found:
        raise ConfigError(f"{data}: shares no item with the federation's catalogue", "name data of the same kind")
    return found


def _unmeasured(coordinator: Coordinator, data: str) -> list[int]:
    registry, known = coordinator.registry, QualityBook(coordinator.database).by_adapter()
    versions = [registry.version(number) for number in range(registry.head_round() + 1)]
    return [
        one.round for one in versions if known.get(one.adapter_hash) is None or known[one.adapter_hash].data != data
    ]
