"""`fedrec serve`: a run's adapter behind the partner's own service, with the run's interactions as its first events."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from fedrec.data.sources import cache_dir
from fedrec.errors import RunError
from fedrec.model.recommender import write_state
from fedrec.model.shared import sentences_of
from fedrec.query.correction import CorrectionPromise
from fedrec.query.query_model import load_query_model
from fedrec.recommend.live_model import LiveModel
from fedrec.registry.registry import Registry
from fedrec.rows import is_private
from fedrec_client.serving.errors import NotFoundError
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import ServingSettings, read_serving
from fedrec_client.serving.starting import Say, Starting
from fedrec_client.serving.store.store import ServingStore, TenantStore, store_url
from fedrec_sim.queries.reading import corrected, private_correction, query_source
from fedrec_sim.run import Json, Run, read_json, read_run
from fedrec_sim.serving import load_adapter, row_handed_on
from fedrec_sim.world import World, load_world, on_any_device

_TOGETHER = 5000
EVENT_TYPE = "rating"


def serve_run(folder: Path, port: int | None, *, with_events: bool, say: Say, place: Path | None = None) -> None:
    """Serve a run until Ctrl-C.

    Args:
        port: in place of the one of `serving.toml`.
        with_events: the run's interactions become the first events.
        place: folder of the service; RUN/serving otherwise.
    Raises: RunError: no such run, or it has no adapter. ModelError: its correction of the reader of requests was learnt
        without privacy. As `Starting.run`.
    """
    run = read_run(folder)
    place = place or folder / "serving"
    correction = private_correction(folder)  # before the minutes that loading takes
    settings = read_serving(place)
    if port is not None:
        settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})

    def make(tell: Say, versions: RunVersions) -> Served:
        world = versions.world = load_world(on_any_device(run.config), tell)
        served = served_run(run, world, settings)
        if with_events:
            store = ServingStore.open(store_url(place, settings.store.database))
            try:
                seed_events(store.of(settings.tenant_names[0]), world, tell)
            finally:
                store.close()
        return served

    versions = RunVersions(run, settings)

    async def offer(service: Service, _: ServingMetrics) -> None:
        service.versions = versions

    Starting(
        place,
        settings,
        lambda tell: make(tell, versions),
        say,
        after=offer,
        outside=Outside(lambda: served_statement(folder, correction)),
    ).run()


def served_statement(folder: Path, correction: CorrectionPromise | None) -> Json:
    """The statement of a run's adapter, with what the correction that is served beside it promises."""
    beside = {} if correction is None else {"correction": asdict(correction)}
    return {**read_json(folder / "adapter" / "privacy.json"), **beside}


@dataclass
class RunVersions:
    """Every round of a run's adapter."""

    run: Run
    settings: ServingSettings
    world: World | None = None

    def _of(self) -> tuple[str, Registry]:
        row = row_handed_on(self.run)
        if row is None:
            raise RunError(f"{self.run.folder}: no row of it has an adapter", "add federated or federated_dp to rows")
        return row, Registry(self.run.folder / "registry" / f"{row}-{self.run.config.seeds[0]}")

    def names(self) -> list[str]:
        """Oldest first."""
        return [f"round-{number:04d}" for number in range(1, self._of()[1].head_round() + 1)]

    def load(self, name: str) -> LiveModel:
        """Raises NotFoundError."""
        if self.world is None or name not in self.names():
            raise NotFoundError("adapter", "GET /v1/adapters names them")
        row, registry = self._of()
        config = self.run.config.for_row(row)
        model = self.world.model(config.private.shape if is_private(row) else config.plain.shape, config.seeds[0])
        write_state(model, registry.load(int(name.removeprefix("round-"))))
        return LiveModel(model, name, config.data.max_history, self.settings.model.new_item_boost)


def served_run(run: Run, world: World, settings: ServingSettings) -> Served:
    """A run's adapter, ready to serve. Raises as `load_adapter` and `private_correction`."""
    private_correction(run.folder)
    adapter = load_adapter(run, world)
    live = LiveModel(
        adapter.recommender.model,
        adapter.card.version,
        adapter.recommender.max_history,
        settings.model.new_item_boost,
    )
    queries, sentences = load_query_model(query_source(world), cache_dir()), sentences_of(world.config.model)
    queries = queries and corrected(queries, run.folder)
    later, features = world.shared.later_items(world.catalog), world.features.hash
    return Served(world.catalog, live, later, features, queries, sentences)


def seed_events(store: TenantStore, world: World, say: Say = lambda _: None) -> int:
    """Put the run's interactions into a store that has no event; how many were put."""
    if store.log.last_seq():
        return 0
    n = 0
    events = _events(world)
    while some := list(islice(events, _TOGETHER)):
        store.events.add(some)
        n += len(some)
        say(f"{n} of the run's interactions are events now")
    return n


def _events(world: World) -> Iterator[Event]:
    for table in world.table.tables():
        for user, item, rating, timestamp in zip(
            table.user_codes, table.item_codes, table.rating, table.timestamp, strict=True
        ):
            yield Event(
                type=EVENT_TYPE,
                user=table.user_ids[user],
                item=table.item_ids[item],
                value=float(rating) if rating == rating else 1.0,
                timestamp=float(timestamp),
            )
