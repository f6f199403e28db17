"""`fedrec query learn`: the partners of a run correct the reader of requests with requests of their own users."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedrec.data.datasets import Say, load_data
from fedrec.data.matching import same_items
from fedrec.data.partition import deal_users
from fedrec.errors import DataError
from fedrec.files import storage_errors, sync_folder
from fedrec.privacy.statement_page import statement_page
from fedrec.query.correction import save_correction
from fedrec.query.query_model import QueryModel
from fedrec.query.request_rows import RequestRows
from fedrec.tasks.examples import TaskExamples
from fedrec_sim.queries.learning import PublicGround, PublicTaking, learn
from fedrec_sim.queries.reading import FINISHED, correction_folder, unplaced_folder
from fedrec_sim.run import Json, Run, commit_of_checkout, set_aside, write_json
from fedrec_sim.tasks.rounds import TaskPromise
from fedrec_sim.world import World

Progress = Callable[[int, int], None]


def public_taking(world: World, say: Say) -> PublicTaking:
    """What the published data of a run's model say of how much each item is taken; nothing where it reads none."""
    name, n_items = world.config.model.public_data, len(world.catalog)
    if name == "none":
        return PublicTaking(np.zeros(n_items, np.float32), None)
    catalog, table = load_data(name, say)
    code, counts = same_items(world.catalog, catalog), np.zeros(n_items)
    for piece in table.tables():
        items = code[piece.item_codes]
        counts += np.bincount(items[items >= 0], minlength=n_items)
    return PublicTaking(np.log((counts + 1) / (counts + 1).sum()).astype(np.float32), name)


def learn_run(
    run: Run,
    world: World,
    model: QueryModel,
    rows: RequestRows,
    epsilon: float | None,
    command: str,
    progress: Progress,
) -> Json:
    """Deal the users to the run's partners, learn by rounds, keep the correction beside the run's adapter.

    What an earlier call left is moved aside, never deleted, once this one has come to its end. So is what one that did
    not come to its end had paid.

    Args:
        epsilon: None for no privacy.
        progress: of reading requests, called with (read, in all).
    Returns: what stands in `learnt.json`.
    Raises: DataError: no request says anything beside titles and refusals. ConfigError: fewer users than partners.
        StorageError: the run's folder cannot be written. As `federate_head`.
    """
    config, seed = run.config, run.config.seeds[0]
    _refuse_too_few(rows, model, config.partners, seed)
    ground = PublicGround.of(model, world.catalog, public_taking(world, lambda _: None))
    examples = rows.examples(model, ground.inputs, progress)
    shares = dealt(examples, config.partners, seed)
    promise = None
    if epsilon is not None:
        promise = TaskPromise(epsilon, config.private.delta, "secagg", config.private.noise_source)
    place = correction_folder(run.folder).parent
    fresh = _new_folder(place)
    name = f"requests-{epsilon}-{seed}"
    learnt = learn(ground, shares, run=name, seed=seed, promise=promise, folder=fresh)
    told = {
        "users": examples.n_users,
        "requests": examples.n_rows,
        "partners": len(shares),
        "privacy": {key: learnt.statement[key] for key in ("mode", "epsilon", "delta")},
        "reader": model.key[:16],
        "command": command,
        "commit": commit_of_checkout(),
    }
    page = statement_page(learnt.statement, f"{run.folder.name}, correction of the reader of requests")
    page += f"\n\nWhat was read: {learnt.statement['reads']}.\n"
    save_correction(learnt.correction, fresh / correction_folder(run.folder).name, learnt.statement, page)
    write_json(fresh / FINISHED, told)  # last: where it stands, all else does
    _put_in_place(fresh, place)
    return told


def _refuse_too_few(rows: RequestRows, model: QueryModel, partners: int, seed: int) -> None:
    """Before the minutes that reading takes. Raises DataError, ConfigError."""
    n_users = len(rows.users_who_say_something(model))
    if not n_users:
        raise DataError("no request says anything beside titles and refusals", "name a file with other requests")
    deal_users(n_users, partners, seed)


def _new_folder(place: Path) -> Path:
    """A folder to learn in. What a call that was cut short left there is kept: it may hold what users have paid."""
    fresh = unplaced_folder(place)
    if (fresh / FINISHED).is_file():
        _put_in_place(fresh, place)
    with storage_errors(place.parent):
        if fresh.exists() and any(fresh.rglob("ledger.pool*")):
            set_aside(fresh, place)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        sync_folder(place.parent)
    return fresh


def _put_in_place(fresh: Path, place: Path) -> None:
    """Durably; what stood there is moved aside."""
    with storage_errors(place.parent):
        sync_folder(fresh)
        if place.exists():
            set_aside(place)
        fresh.rename(place)
        sync_folder(place.parent)


def dealt(examples: TaskExamples, partners: int, seed: int) -> list[TaskExamples]:
    """Users dealt to partners, as evenly as it goes."""
    return [examples.of_users(places) for places in deal_users(examples.n_users, partners, seed)]
