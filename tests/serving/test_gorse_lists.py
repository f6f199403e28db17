"""Gorse's lists of one source, of what is like something, and of a session."""

import numpy as np

from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place
from tests.serving.test_gorse import ITEM, Ask, asked, like


def test_lists_of_one_source(place: Place, served: Served) -> None:
    ids = served.catalog.ids

    async def work(ask: Ask, service: Service) -> None:
        await ask("POST", "/api/item", {**ITEM, "Timestamp": "2020-01-01"})
        await ask("POST", "/api/feedback", [like(ids[3], user) for user in ("anna", "bert", "cleo")])
        latest = await ask("GET", "/api/latest?n=1")
        assert latest == [{"Id": "new", "Score": 1577836800.0}]
        assert (await ask("GET", "/api/popular?n=40"))[0] != {}
        for name in ("popular", "trending", "latest"):
            assert await ask("GET", f"/api/non-personalized/{name}?n=1")
        assert (await ask("GET", "/api/non-personalized/trending"))[0]["Id"] == ids[3]
        assert await ask("GET", "/api/non-personalized/trending?user-id=anna") == []
        assert "no such" in await ask("GET", "/api/non-personalized/weekly", status=404)
        theirs = await ask("GET", "/api/collaborative-filtering/anna?n=3")
        assert [one["Id"] for one in theirs] == await ask("GET", "/api/recommend/anna?n=3")
        assert await ask("GET", "/api/collaborative-filtering/nobody") == []
        await ask("POST", "/api/feedback", [like(theirs[0]["Id"], "dora")])
        rest = await ask("GET", "/api/collaborative-filtering/anna?n=2&user-id=dora")
        assert [one["Id"] for one in rest] == [one["Id"] for one in theirs[1:]]

    asked(place, work)


def test_neighbours_are_those_of_the_vectors(place: Place, served: Served) -> None:
    ids = served.catalog.ids

    async def work(ask: Ask, service: Service) -> None:
        one = service.of("default")
        vectors = one.lists.sources.vectors(one.tenant.engine.model)
        cosines = vectors @ vectors[5]
        expected = [ids[code] for code in np.argsort(-cosines, kind="stable") if code != 5][:7]
        by_name = await ask("GET", f"/api/item-to-item/neighbors/{ids[5]}?n=7")
        assert [one["Id"] for one in by_name] == expected
        for path in (f"/api/item/{ids[5]}/neighbors", f"/api/item/{ids[5]}/neighbors/"):
            assert await ask("GET", f"{path}?n=5&offset=2") == by_name[2:]
        await ask("POST", "/api/feedback", [like(expected[0])])
        assert (await ask("GET", f"/api/item/{ids[5]}/neighbors?n=6&user-id=anna"))[0]["Id"] == expected[1]
        assert await ask("GET", "/api/item/none/neighbors") == []
        assert await ask("GET", "/api/user/none/neighbors/") == []
        for user in ("anna", "bert"):
            await ask("POST", "/api/feedback", [like(ids[8], user)])
            await ask("GET", f"/api/recommend/{user}")
        (neighbour,) = await ask("GET", "/api/user-to-user/neighbors/anna")
        assert (neighbour["Id"], set(neighbour)) == ("bert", {"Id", "Score"})
        assert await ask("GET", "/api/user/anna/neighbors?offset=1") == []

    asked(place, work)


def test_a_session_is_answered_and_not_stored(place: Place, served: Served) -> None:
    ids = served.catalog.ids

    async def work(ask: Ask, service: Service) -> None:
        session = [
            {"FeedbackType": "like", "ItemId": ids[2], "Timestamp": "2020-01-02"},
            {"FeedbackType": "like", "ItemId": ids[1], "Timestamp": "2020-01-01"},
            {"FeedbackType": "like", "ItemId": "nobody knows it"},
        ]
        found = await ask("POST", "/api/session/recommend?n=3", session)
        assert found == await ask("POST", "/api/session/recommend?n=3", session[1::-1])
        assert len(found) == 3
        assert not {one["Id"] for one in found} & {ids[1], ids[2]}
        assert service.of("default").tenant.store.events.count() == 0
        assert len(await ask("POST", "/api/session/recommend", [])) == 10

    asked(place, work)
