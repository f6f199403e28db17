"""The pages as HTML: nothing of others' making runs, nobody is lost, no item comes twice, each scope holds."""

import asyncio
import html
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest

from fedrec.fairness.figures import gini
from fedrec.recommend.rules import Rule
from fedrec.recommend.shelf import Item
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.pages.outside import Outside, Promise
from fedrec_client.serving.pages.pulse import Pulse, quantile_ms
from fedrec_client.serving.pages.routes import routes
from fedrec_client.serving.records import Event, Query
from fedrec_client.serving.service import Served, Service
from tests.serving.conftest import Place

_T = TypeVar("_T")
Work = Callable[[httpx.AsyncClient, Service], Awaitable[_T]]
HOSTILE = "<script>alert(1)</script>'\"&"


def ids(page: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'<li class="card" data-item="([^"]*)"', page)]


def test_a_title_of_hostile_making_runs_nowhere(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        one = service.of("default")
        await one.intake.put_items([Item("'><b>", HOSTILE, HOSTILE, (HOSTILE,), timestamp=5.0)])
        await one.policy.put(Rule(name="week", action="pin", items=("'><b>",), position=1))
        await one.intake.add_events([Event(HOSTILE, "'><b>", user=HOSTILE)])
        pages = [
            await client.get("/shop", params={"user": "anna"}),
            await client.get("/shop", params={"user": HOSTILE}),
            await client.get("/shop/items/'><b>", params={"user": "anna"}),
            await client.get("/shop/search", params={"q": HOSTILE, "user": "anna"}),
            await client.get("/shop/why", params={"item": "'><b>", "user": "anna", "ranking": HOSTILE, "source": "x"}),
            await client.post("/shop/events", data={"type": "like", "item": "'><b>", "user": "bert"}),
            await client.get("/operate/events"),
            await client.post("/operate/rules", data={"name": HOSTILE, "more": HOSTILE, "items": HOSTILE}),
        ]
        for page in pages:
            assert page.status_code == 200
            assert "<script>alert" not in page.text
            assert "'><b>" not in page.text
            assert not re.search(
                r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|(src|href|action)=.?(https?:)?//", page.text
            )
        assert html.escape(HOSTILE, quote=False).split("'")[0] in pages[0].text

    place.call(routes, work)


def test_a_new_visitor_is_asked_until_enough_is_known(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        def asked(page: str) -> list[str]:
            part = page.partition('class="questions"')[2].partition("</ul>")[0]
            return re.findall(r"&#34;item&#34;: &#34;([^&]*)&#34;|\"item\": \"([^\"]*)\"", part)  # type: ignore[return-value]

        who = {"session": "abc"}
        page = (await client.get("/shop", params=who)).text
        for number in range(5):
            questions = [a or b for a, b in asked(page)][::2]
            assert len(set(questions)) == 3, number
            kind = "like" if number % 2 else "dislike"
            page = (await client.post("/shop/events", data={"type": kind, "item": questions[0], **who})).text
            assert questions[0] not in [a or b for a, b in asked(page)]
        assert asked(page) == []
        assert 'class="questions"' not in (await client.get("/shop", params={"user": "anna"})).text

    place.call(routes, work)


def test_unknown_people_and_nameless_ones_get_a_list_and_their_events_count(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        for address in ({"user": "nobody knows"}, {"session": "s1"}):
            page = await client.get("/shop", params=address)
            first = ids(page.text)
            assert len(first) == len(set(first)) == 12
            told = await client.post("/shop/events", data={**address, "type": "watch", "item": first[0], "n": "12"})
            assert told.status_code == 200
            assert first[0] not in ids(told.text)
            assert "Because you watched" in told.text
            assert 'hx-swap-oob="afterbegin:#stayed"' in told.text
        start = await client.get("/shop?new")
        assert start.status_code == 303
        assert re.fullmatch(r"/shop\?session=[0-9a-f]{16}", start.headers["location"])

    place.call(routes, work)


def test_more_shows_every_item_once(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await service.of("default").intake.add_events([Event("like", "1", user="anna")])
        page = (await client.get("/shop", params={"user": "anna"})).text
        shown = ids(page)
        while more := re.search(r"hx-get=\"/shop/more\" hx-vals='([^']*)'", page):
            values = httpx.Response(200, text=html.unescape(more[1])).json()
            page = (await client.get("/shop/more", params={**values, "user": "anna"})).text
            shown += ids(page)
            assert (await client.get("/shop/more", params={**values, "user": "bert"})).status_code == 400
        assert len(shown) == len(set(shown)) == service.of("default").tenant.shelf.n_open - 1

    place.call(routes, work)


def test_a_shop_without_items_says_so(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        for item in served.catalog.ids:
            await service.of("default").intake.remove_item(item)
        page = await client.get("/shop", params={"user": "anna"})
        assert page.status_code == 200
        assert "nothing to recommend" in page.text
        assert (await client.get("/shop/search", params={"q": "film", "user": "anna"})).status_code == 200
        assert (await client.get("/operate")).status_code == 200
        gone = await client.get(f"/shop/items/{served.catalog.ids[0]}", headers={"accept": "text/html"})
        assert (gone.status_code, gone.headers["content-type"][:9]) == (404, "text/html")
        assert (await client.get("/shop/items/x")).headers["content-type"] == "application/problem+json"

    place.call(routes, work)


def test_the_panel_says_what_the_statement_says(place: Place) -> None:
    told: dict[str, object] = {"epsilon": 7.98, "delta": 1e-4, "unit": "user", "parts": [{"steps": 40}, {"steps": 6}]}

    async def work(client: httpx.AsyncClient, service: Service) -> str:
        return (await client.get("/shop", params={"user": "anna"})).text

    def with_statement(service: Service, metrics: ServingMetrics) -> object:
        return routes(service, metrics, Outside(statement=lambda: told))

    assert "Nothing: there is no adapter yet" in place.call(routes, work)
    page = place.call(with_statement, work)
    assert "ε = 7.98" in page
    assert "over all 46 rounds" in page
    assert "no privacy" in place.call(lambda s, m: routes(s, m, Outside(lambda: {"epsilon": None})), work)
    assert "requests taught" not in page

    async def desk(client: httpx.AsyncClient, service: Service) -> str:
        return (await client.get("/operate")).text

    told["correction"] = {"mode": "secagg", "epsilon": 3.21, "delta": 2e-5}  # of `fedrec serve`, beside the adapter's
    page = place.call(with_statement, work)
    assert "ε = 7.98" in page
    assert (
        "ε = 3.21</b> and δ = 2e-05: for people whom adapter and reader were both learnt from, the two add up" in page
    )
    assert "ε 3.21 for what requests taught, which add up" in place.call(with_statement, desk)
    caveat = Promise.read({"simulated": True, "noise_caveat": "a simulation"})
    assert caveat is not None
    assert caveat.caveat == "a simulation"


def test_opinions_search_and_reasons(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        one = service.of("default")
        await one.intake.add_events([Event("like", item, user="anna") for item in served.catalog.ids[:3]])
        await one.intake.put_items(
            [Item("n", "Song of the Whale", categories=("War",)), Item("h", "Whale", is_hidden=True)]
        )
        answer = await one.lists.recommend(Query("anna"))
        item = answer.items[0].item.id
        why = await client.get(
            "/shop/why", params={"item": item, "user": "anna", "ranking": answer.id, "source": "model"}
        )
        assert "Checked." in why.text
        form = {"item": item, "user": "anna", "ranking": answer.id, "helpful": "yes"}
        assert "Thank you" in (await client.post("/shop/opinions", data=form)).text
        assert one.tenant.store.opinions.counts() == {True: 1, False: 0}
        assert (await client.post("/shop/opinions", data=form | {"helpful": "maybe"})).status_code == 400
        found = (await client.get("/shop/search", params={"q": " whale ", "user": "anna"})).text
        assert "Song of the Whale" in found
        assert 'href="/shop/items/h?' not in found
        assert (await client.post("/shop/events", data={"type": "buy", "item": item, "user": "a"})).status_code == 404
        assert (await client.post("/shop/events", data={"type": "like", "item": "?", "user": "a"})).status_code == 404
        assert (await client.get("/shop", params={"user": "\x00session x"})).status_code == 400

    place.call(routes, work)


def test_the_rules_editor_shows_every_problem_and_changes_nothing_then(place: Place, served: Served) -> None:
    item = served.catalog.ids[5]

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        rules = service.of("default").policy
        bad = {"name": "a/b", "action": "pin", "position": "two", "amount": "1", "more": '{"hours": "8", "name": "x"}'}
        told = (await client.post("/operate/rules", data=bad)).text
        for words in ("position: &#39;two&#39; is no whole number", "no hours such as", "name: "):
            assert words in told
        assert "JSON: line 1" in (await client.post("/operate/rules", data={"more": "{"})).text
        assert not rules.every()
        good = {"name": "week", "action": "pin", "position": "1", "items": item, "enabled": "yes", "was": ""}
        tried = (await client.post("/operate/rules/try", data=good)).text
        assert "1 item" in tried
        assert not rules.every()
        assert "week is in force" in (await client.post("/operate/rules", data=good)).text
        assert ids((await client.get("/shop", params={"user": "anna"})).text)[0] == item
        edit = (await client.get("/operate/rules", params={"edit": "week"})).text
        assert f">{item}</textarea>" in edit
        await client.post("/operate/rules", data=good | {"name": "month", "was": "week"})
        assert [rule.name for rule, _ in rules.every()] == ["month"]
        await client.post("/operate/rules", data=good | {"was": "month"})
        assert "week is gone" in (await client.post("/operate/rules/remove", data={"rule": "week"})).text
        assert not rules.every()

    place.call(routes, work)


def test_rules_of_the_file_are_to_be_read_only(place: Place, served: Served) -> None:
    text = f'format = 1\n[[rules]]\nname = "fixed"\naction = "exclude"\nitems = ["{served.catalog.ids[0]}"]\n'
    (place.folder / "rules.toml").write_text(text)

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        page = (await client.get("/operate/rules")).text
        assert "in the rules file: change it there" in page
        assert 'aria-label="Delete fixed"' not in page
        assert (await client.post("/operate/rules/remove", data={"rule": "fixed"})).status_code == 409

    place.call(routes, work)


def test_events_are_paged_newest_first_and_filtered(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        events = [Event("like", served.catalog.ids[n % 40], user=f"u{n}", timestamp=n + 1.0) for n in range(70)]
        await service.of("default").intake.add_events(events)
        page, seen = (await client.get("/operate/events")).text, []
        while True:
            seen += re.findall(r'user=(u\d+)">', page)
            if not (more := re.search(r'href="([^"]*)" id="earlier"', page)):
                break
            page = (await client.get(html.unescape(more[1]))).text
        assert seen == [f"u{n}" for n in reversed(range(70))]
        assert re.findall(r'user=(u\d+)">', (await client.get("/operate/events", params={"user": "u7"})).text) == ["u7"]

    place.call(routes, work)


def test_keys_are_shown_once_and_nobody_locks_themselves_out(place: Place) -> None:
    forgotten: list[int] = []

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        only_read = await client.post("/operate/keys", data={"name": "shop", "read": "yes"})
        assert "the first key needs the scope admin" in only_read.text
        made = await client.post("/operate/keys", data={"name": "me", "admin": "yes"})
        secret = re.search(r'id="secret"[^>]*>(fk_[\w-]+)<', made.text)
        assert secret
        assert forgotten
        page = await client.get("/operate/keys", headers={"x-api-key": secret[1]})
        assert secret[1] not in page.text
        last = await client.post("/operate/keys/revoke", data={"key": "me"}, headers={"x-api-key": secret[1]})
        assert last.status_code == 400
        assert service.store.keys.find(secret[1])

    place.call(lambda s, m: routes(s, m, Outside(on_keys_changed=lambda: forgotten.append(1))), work)


def test_scopes_hold_and_other_sites_change_nothing(place: Place, served: Served) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        await service.of("default").intake.add_events([Event("like", served.catalog.ids[0], user="anna")])
        secrets = {scope: service.store.keys.create("default", scope, {scope}) for scope in ("read", "write", "admin")}  # type: ignore[arg-type]
        both = service.store.keys.create("default", "both", {"read", "write"})
        reader = {"x-api-key": secrets["read"]}
        page = await client.get("/shop", params={"user": "anna"}, headers=reader)
        assert page.status_code == 200
        assert "Person" not in page.text.replace("Person anna", "")
        assert "Lately:" not in page.text
        event = {"type": "like", "item": served.catalog.ids[1], "user": "anna"}
        assert (await client.post("/shop/events", data=event, headers=reader)).status_code == 403
        assert (await client.post("/shop/events", data=event, headers={"x-api-key": both})).status_code == 200
        for path in ("/operate", "/operate/figures", "/operate/events", "/operate/keys", "/operate/live"):
            assert (await client.get(path, headers={"x-api-key": both})).status_code == 403
            assert (await client.get(path, headers={"x-api-key": secrets["admin"]})).status_code == 200
        basic = {"authorization": "Basic " + b64encode(f"me:{secrets['admin']}".encode()).decode()}
        for path, form in (("/shop/events", event), ("/operate/rules/remove", {"rule": "x"})):
            foreign = basic | {"origin": "https://evil.example"}
            assert (await client.post(path, data=form, headers=foreign)).status_code == 403
            own = basic | {"origin": "http://127.0.0.1"}
            assert (await client.post(path, data=form, headers=own)).status_code in (200, 404)

    place.call(routes, work)


def test_figures_count_what_was_asked_and_clicked(place: Place) -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        page = (await client.get("/shop", params={"user": "anna"})).text
        ranking = re.search(r'"ranking": "([0-9a-f]{32})"', html.unescape(page))
        assert ranking
        form = {"type": "watch", "item": ids(page)[2], "user": "anna", "ranking": ranking[1]}
        await client.post("/shop/events", data=form)
        await asyncio.sleep(1.1)
        told = (await client.get("/operate/figures")).json()
        assert sum(told["series"]["events"]) == 1
        assert (told["lists"], told["arms"][0]["clicked"], told["people_in_memory"]) == (2, 1, 1)
        assert told["adapter"]["version"] == "round-0001"
        assert told["requests_per_s"] > 0
        assert 0 < told["coverage"] <= 1
        assert sum(told["sources"].values()) == 24

    place.call(routes, work)


@pytest.mark.parametrize(("counts", "n", "expected"), [([], 3, 0.0), ([2, 2, 2], 3, 0.0), ([9], 3, 2 / 3)])
def test_gini_is_that_of_the_pairwise_definition(counts: list[int], n: int, expected: float) -> None:
    assert gini(counts, n) == pytest.approx(expected)


def test_the_pulse_counts_whole_seconds_and_leaves_out_its_own_page() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    for route, status, seconds in (("/shop", 200, 0.01), ("/v1/rank", 500, 0.03), ("/operate/live", 200, 9.0)):
        pulse.note_answer(route, status, seconds)
    pulse.note_events(3)
    assert sum(second.requests for second in pulse.last(60)) == 0
    now[0] = 102.5
    last = pulse.last(60)
    assert [(one.at, one.requests, one.failed, one.events) for one in last if one.requests] == [(100, 2, 1, 3)]
    assert (quantile_ms(last, 0.5), quantile_ms(last, 0.95), quantile_ms([], 0.5)) == (10.0, 30.0, None)
