"""`fedrec serve`: a run's adapter behind the partner's own service, with the run's interactions as its first events."""

from collections.abc import Callable, Iterator
from itertools import islice

from fedrec.data.sources import cache_dir
from fedrec.model.features import TextEncoder
from fedrec.model.shared import encoder_folder
from fedrec.recommend.live_model import LiveModel
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Served
from fedrec_client.serving.settings import ServingSettings
from fedrec_client.serving.store.store import TenantStore
from fedrec_sim.run import Run
from fedrec_sim.serving import load_adapter
from fedrec_sim.world import World

_TOGETHER = 5000
EVENT_TYPE = "rating"


def served_run(run: Run, world: World, settings: ServingSettings) -> Served:
    """A run's adapter, ready to serve. Raises as `load_adapter`."""
    adapter = load_adapter(run, world)
    live = LiveModel(
        adapter.recommender.model,
        adapter.card.version,
        adapter.recommender.max_history,
        settings.model.new_item_boost,
    )
    return Served(world.catalog, live, text_encoder(world).encode)


def text_encoder(world: World) -> TextEncoder:
    """For items that joined after the catalogue."""
    config = world.config.model
    encoder = encoder_folder(config)
    return TextEncoder(
        world.catalog,
        world.shared.folder,
        encoder,
        layer=config.feature_layer,
        dim=config.feature_dim,
        cache=cache_dir(),
    )


def seed_events(store: TenantStore, world: World, say: Callable[[str], None] = lambda _: None) -> int:
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
