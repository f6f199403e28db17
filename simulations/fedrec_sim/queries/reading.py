"""The reader of requests of a run's world: from the cache, or taught now."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from fedrec.data.catalog import ItemCatalog
from fedrec.data.sources import cache_dir
from fedrec.errors import ConfigError, ModelError
from fedrec.model.shared import encoder_folder
from fedrec.query.correction import Correction, CorrectionPromise, load_correction
from fedrec.query.learning import LearningPlan
from fedrec.query.query_model import (
    QueryModel,
    QuerySource,
    load_query_model,
    make_query_model,
    save_query_model,
)
from fedrec.query.understood import Understood
from fedrec_sim.run import read_json
from fedrec_sim.world import World

# Written last into what `fedrec query learn` leaves.
FINISHED = "learnt.json"
_ADD_UP = "for people whom correction and adapter were both learnt from, the epsilons add up"
_PROTECTS_NOBODY = "the correction was learnt without privacy: it protects nobody, whatever the adapter promises"


def query_source(world: World) -> QuerySource:
    """What the reader of a world is made from."""
    shared = world.shared
    return QuerySource(world.catalog, shared.folder, encoder_folder(shared.config), shared.config.layers)


def query_model_of(world: World, progress: Progress, *, again: bool = False) -> QueryModel:
    """Take it from the cache, or teach it and keep it there; `again`: teach it whatever there is."""
    source = query_source(world)
    if not again and (held := load_query_model(source, cache_dir())) is not None:
        return held
    task = progress.add_task("teaching the reader of requests", total=None)
    model = make_query_model(
        source, LearningPlan(), lambda done, total: progress.update(task, completed=done, total=total)
    )
    progress.remove_task(task)
    save_query_model(model, cache_dir())
    return model


def correction_folder(run: Path) -> Path:
    """Where a run keeps what its partners' requests taught; the cache is for what is public, and for every run."""
    return run / "requests" / "correction"


def unplaced_folder(place: Path) -> Path:
    """Where `fedrec query learn` fills what will stand in a run's `requests`."""
    return place.with_name(f".{place.name}.new")


def correction_of(run: Path) -> Correction | None:
    """What a run's partners learnt; None where they learnt nothing.

    Raises: ModelError: altered, or learnt but not in its place, since a crash came between.
    """
    folder = correction_folder(run)
    unplaced = unplaced_folder(folder.parent)
    if not folder.parent.exists() and (unplaced / FINISHED).is_file():
        remedy = f"rename it to {folder.parent.name}, or delete it to have the public reader"
        raise ModelError(f"{unplaced}: a correction was learnt, but is not in its place", remedy)
    return load_correction(folder)


def corrected(model: QueryModel, run: Path) -> QueryModel:
    """The reader as a run's partners corrected it; as it is where they learnt nothing. Raises as `correction_of`."""
    return model.corrected_by(correction_of(run))


def private_correction(run: Path) -> CorrectionPromise | None:
    """What the correction that a service of a run reads requests with promises; None: it has none.

    Raises: ModelError: it was learnt without privacy, and people are served here. As `correction_of`.
    """
    correction = correction_of(run)
    if correction is None:
        return None
    if correction.promise is not None and correction.promise.is_private:
        return correction.promise
    remedy = "learn it anew with `fedrec query learn --epsilon`, or delete the folder to have the public reader"
    raise ModelError(f"{correction_folder(run).parent}: requests were learnt from without privacy", remedy)


def promised(run: Path) -> dict[str, Any]:
    """What reading requests as a run's partners taught costs them, beside what the run's adapter does; else nothing.

    Raises: as `correction_of`.
    """
    correction = correction_of(run)
    if correction is None or correction.promise is None:
        return {}
    file = run / "adapter" / "privacy.json"
    adapter = asdict(CorrectionPromise.of(read_json(file))) if file.is_file() else None
    together = _ADD_UP if correction.promise.is_private else _PROTECTS_NOBODY
    return {"correction": asdict(correction.promise), "adapter": adapter, "together": together}


@dataclass(frozen=True)
class Asking:
    """A request in words over a world's catalogue.

    Attributes:
        scores: nats of each item, `[items]`.
        told: what was understood, and what was promised to those who taught it.
    """

    scores: NDArray[np.float64] = field(repr=False)
    told: dict[str, Any]

    @classmethod
    def of(cls, world: World, run: Path, words: str) -> "Asking":
        """Of a run's folder. Raises ConfigError: nobody taught a reader of requests for this catalogue."""
        model = load_query_model(query_source(world), cache_dir())
        if model is None:
            raise ConfigError("no reader of requests in words was taught", "teach one with `fedrec query train`")
        model = corrected(model, run)
        understood = model.understand(words)
        scores = model.scores(understood, model.space.of_catalog(world.catalog))
        return cls(scores, told(understood, world.catalog) | promised(run))


def told(understood: Understood, catalog: ItemCatalog) -> dict[str, Any]:
    """What was understood, in words."""
    return {
        "wanted": list(understood.wanted),
        "unwanted": list(understood.unwanted),
        "first_year": understood.first_year,
        "last_year": understood.last_year,
        "like": [catalog.titles[item] for item in understood.like],
        "named": [catalog.titles[item] for item in understood.named],
    }
