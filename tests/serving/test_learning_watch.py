"""The watch: what it reads once, what it finds, and that a restart loses nothing."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedrec.files import read_json
from fedrec_client.serving.learning.alerts import Alerts
from fedrec_client.serving.learning.measures import CONFIDENCE, HITS, UNKNOWN
from fedrec_client.serving.learning.watch import Watch
from fedrec_client.serving.records import IMPORTED_TYPE, Event, Query, Shown
from fedrec_client.serving.service import Served, Service, TenantService
from tests.serving.conftest import Place

DAY = 86_400.0
SETTINGS = {"learning": {"window_events": 200}}


class Clock:
    """Time that a test moves."""

    def __init__(self, now: float = 20_000 * DAY) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def watch_of(one: TenantService, folder: Path, clock: Clock) -> Watch:
    return Watch(one, folder / "watch.json", Alerts("", clock=clock), clock=clock)


async def a_day(one: TenantService, served: Served, clock: Clock, day: int, n: int, types: list[str]) -> None:
    """Events over the day that passes, of items of two genres."""
    rng = np.random.default_rng(day)
    moments = clock.now + np.sort(rng.random(n)) * (DAY - 60)
    events = [
        Event(
            types[place % len(types)], served.catalog.ids[rng.integers(40)], user=f"u{rng.integers(50)}", timestamp=at
        )
        for place, at in enumerate(moments.tolist())
    ]
    await one.intake.add_events(events)
    clock.now += DAY


def test_quiet_days_are_no_drift_and_another_kind_of_day_is(
    make_place: Callable[..., Place], served: Served, tmp_path: Path
) -> None:
    async def work(one: TenantService) -> None:
        clock = Clock()
        watch = watch_of(one, tmp_path, clock)
        for day in range(4):
            await a_day(one, served, clock, day, 300, ["like", "read", "like"])
            assert await watch.look() == []
        await a_day(one, served, clock, 4, 300, ["purchase", "read"])
        found = await watch.look()
        assert [drift.what for drift in found] == ["events by type"]
        assert found[0].value > found[0].bound
        assert watch.drifts == found
        await a_day(one, served, clock, 5, 300, ["purchase", "read"])
        assert await watch.look() == []  # that is how it is now
        assert watch.n_events == 1800

    make_place(**SETTINGS).with_tenant(work)


def test_a_restart_goes_on_where_it_was(make_place: Callable[..., Place], served: Served, tmp_path: Path) -> None:
    clock = Clock()
    place = make_place(**SETTINGS)

    async def before(one: TenantService) -> None:
        watch = watch_of(one, tmp_path, clock)
        await a_day(one, served, clock, 0, 300, ["like"])
        assert await watch.look() == []
        await a_day(one, served, clock, 1, 150, ["purchase"])
        assert await watch.look() == []  # too few so far

    async def after(one: TenantService) -> None:
        watch = watch_of(one, tmp_path, clock)
        assert watch.n_events == 450
        await a_day(one, served, clock, 2, 150, ["purchase"])
        assert [drift.what for drift in await watch.look()] == ["events by type"]
        assert watch.n_events == 600
        (tmp_path / "watch.json").write_text("{")
        assert watch_of(one, tmp_path, clock).n_events == 0

    place.with_tenant(before)
    place.with_tenant(after)


def test_imported_rows_are_read_and_are_nothing_new(place: Place, served: Served, tmp_path: Path) -> None:
    """Rounds have learnt them without the service: they are no reason to wish for one."""

    async def work(one: TenantService) -> None:
        one.tenant.store.events.add(
            [Event(IMPORTED_TYPE, served.catalog.ids[k], user="anna", timestamp=1.0 + k, id=f"i{k}") for k in range(9)]
        )
        watch = watch_of(one, tmp_path, Clock())
        await watch.look()
        await one.intake.add_events([Event("like", served.catalog.ids[9], user="anna", timestamp=20.0)])
        await watch.look()
        assert watch.n_events == 1

    place.with_tenant(work)


def test_hits_are_counted_against_the_list_before(place: Place, served: Served, tmp_path: Path) -> None:
    async def work(one: TenantService) -> None:
        clock = Clock()
        watch, ids = watch_of(one, tmp_path, clock), served.catalog.ids
        now = clock.now
        one.tenant.store.shown.add(
            [
                Shown("1", "anna", "", now, "default", "x", ids[:10], ("model",) * 10),
                Shown("2", "anna", "", now + 100, "default", "x", ids[10:20], ("model",) * 10),
                Shown("3", "", "s", now, "default", "x", ids[20:30], ("popular",) * 10),
            ]
        )
        await one.intake.add_events(
            [
                Event("like", ids[3], user="anna", timestamp=now + 50),  # on the first
                Event("like", ids[4], user="anna", timestamp=now + 150),  # not on the second
                Event("dislike", ids[11], user="anna", timestamp=now + 160),
                Event("like", ids[21], session="s", timestamp=now + 170),
                Event("like", "never heard of", user="bert", timestamp=now + 180),
                Event("like", ids[0], user="anna", timestamp=now - 10 * DAY),  # imported
            ]
        )
        clock.now += 300
        await watch.look()
        values, _ = read_json(tmp_path / "watch.json", 1)
        streams = values["measures"]["streams"]
        assert [x for _, x in streams[HITS]] == [1, 0, 1]
        assert [x for _, x in streams[UNKNOWN]] == [0, 0, 0, 0, 1]
        assert values["measures"]["current"]["lists by source"] == {"model": 20, "popular": 10}
        assert watch.n_events == 6
        assert watch.figures is not None
        assert (watch.figures.lists, watch.figures.clicked_lists) == (3, 2)
        assert 0 < watch.figures.coverage <= 1
        text = json.dumps(values)
        assert not [word for word in ("anna", "bert", *ids[10:20]) if f'"{word}"' in text]

    place.with_tenant(work)


def test_confidence_is_the_share_that_the_list_holds_and_a_swap_forgets_it(
    place: Place, served: Served, tmp_path: Path
) -> None:
    async def work(service: Service) -> None:
        one = service.of("default")
        clock = Clock()
        watch = watch_of(one, tmp_path, clock)
        await one.intake.add_events([Event("like", item, user="anna") for item in served.catalog.ids[:3]])
        answer = await one.lists.recommend(Query("anna", n=10))
        model, vector = await one.tenant.engine.user_vector(await one.tenant.person("anna"))
        scores = model.scores(vector[None])[0].astype(np.float64)
        shares = np.exp(scores) / np.exp(scores).sum()
        expected = sum(shares[served.catalog.codes[ranked.item.id]] for ranked in answer.items)
        one.tenant.store.shown.latest(1)
        await service_settled(one)
        clock.now = time.time() + 60
        await watch.look()
        streams = read_json(tmp_path / "watch.json", 1)[0]["measures"]["streams"]
        assert [x for _, x in streams[CONFIDENCE]] == [round(float(expected), 6)]
        one.tenant.engine.model.version = "round-0002"
        await watch.look()
        assert read_json(tmp_path / "watch.json", 1)[0]["measures"]["streams"][CONFIDENCE] == []

    place.run(work)


async def service_settled(one: TenantService) -> None:
    """All that was written down before is on the disk."""
    await one.tenant.written()
