"""How a service opens: for all tenants at once, and whatever fails while it warms up."""

import asyncio
from collections.abc import Callable

import pytest

from fedrec.errors import ConfigError
from fedrec_client.serving.errors import NotReadyError
from fedrec_client.serving.lists import Lists
from fedrec_client.serving.records import Answer, Query
from fedrec_client.serving.service import Served, Service, TenantService
from fedrec_client.serving.tenant import Tenant
from tests.serving.conftest import Place


def test_what_fails_while_it_warms_up_stops_no_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could mend a rule by API otherwise."""
    make, asked = Lists.recommend, list[Query]()

    async def fail(self: Lists, query: Query) -> Answer:
        asked.append(query)
        if len(asked) == 1:
            raise ConfigError("a rule takes too long", "remove it")
        return await make(self, query)

    async def work(one: TenantService) -> int:
        return len((await one.lists.recommend(Query("anna", n=3))).items)

    monkeypatch.setattr(Lists, "recommend", fail)
    assert place.with_tenant(work) == 3
    assert not asked[0].is_recorded


def test_no_tenant_is_served_before_all_are_there(
    make_place: Callable[..., Place], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told of deletions hears of all tenants' at once, and must not hear too late."""
    place = make_place(tenants=[{"name": "a"}, {"name": "b"}])

    async def work() -> list[bool]:
        service, heard = Service(place.folder, place.settings), list[bool]()

        def is_served() -> bool:
            try:
                return bool(service.of("a"))
            except NotReadyError:
                return service.is_ready()

        async def look(_: Lists, __: Tenant) -> None:
            heard.append(is_served())

        monkeypatch.setattr("fedrec_client.serving.service._warm", look)
        try:
            await service.open(served)
            return [*heard, is_served()]
        finally:
            await asyncio.to_thread(service.close)

    assert asyncio.run(work()) == [False, False, True]
