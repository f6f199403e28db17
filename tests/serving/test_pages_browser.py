"""The pages in headless Chromium, as a person uses them: by mouse, by keyboard alone, on a phone, in the dark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedrec.recommend.shelf import Item
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.records import Event
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import ServingSettings
from fedrec_sim.rehearsal.pages import chromium
from fedrec_sim.rehearsal.shop import pages_served
from tests.serving.conftest import put_head

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium, which .ci/run installs"),
    pytest.mark.timeout(300),
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
STATEMENT = {"epsilon": 7.98, "delta": 1e-4, "unit": "user", "parts": [{"steps": 46}], "simulated": True}
PAGES = ("/shop?user=anna", "/shop?session=s", "/shop/items/{0}?user=anna", "/operate", "/operate/rules")
PAGES += ("/operate/events", "/operate/opinions", "/operate/keys", "/operate/review", "/operate/review/log")
OF_TEXTS = ("/operate/support", "/shop/ask?user=anna", "/operate/sentiment")


class Desk:
    """A served shop, and pages opened on it; what their consoles complain of is kept."""

    def __init__(self, browser: "Browser", home: str, served: Served) -> None:
        self.browser, self.home, self.items = browser, home, served.catalog.ids
        self.complaints: list[str] = []

    @contextmanager
    def page(self, path: str, size: Any = None, scheme: Any = "light", motion: Any = "reduce") -> Iterator["Page"]:
        context = self.browser.new_context(viewport=size or WIDE, color_scheme=scheme, reduced_motion=motion)
        page = context.new_page()
        page.on("console", lambda told: self.complaints.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self._note(asked.url))
        page.goto(f"{self.home}{path}".replace("{0}", self.items[7]))
        yield page
        context.close()
        assert not self.complaints

    def _note(self, url: str) -> None:
        if not url.startswith(self.home):
            self.complaints.append(f"asks elsewhere: {url}")


@pytest.fixture(scope="module")
def desk(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    async def prepare(service: Service) -> None:
        one = service.of("default")
        await one.intake.add_events([Event("like", item, user="anna") for item in served.catalog.ids[:4]])
        await one.intake.add_events([Event("like", item, user="bert") for item in served.catalog.ids[10:14]])
        await one.intake.put_items([Item("new", "Song of the Whale", categories=("War",), timestamp=1e9)])
        await one.intake.put_items([Item(f"bad {n}", f"Fake passports, lot {n}") for n in range(4)])
        await one.support.question("is the whale a fish?", "anna", 1, hands_over=True)
        await one.sentiment.take(["loud space drama"] * 30)

    tables = {"safety": {"screen": ["words"]}, "sentiment": {"head": "head", "window_texts": 20}}
    settings = ServingSettings.model_validate({"format": 1, **tables})
    folder = tmp_path_factory.mktemp("pages")
    assert served.sentences is not None
    put_head(folder, served.sentences, bias=5.0)
    outside = Outside(statement=lambda: STATEMENT)
    with pages_served(folder, served, settings, outside, prepare=prepare) as home, chromium() as browser:
        yield Desk(browser, home, served)


def ids(page: "Page") -> list[str]:
    found: list[str] = page.locator("#cards > .card").evaluate_all("all => all.map(one => one.dataset.item)")
    return found


def click(page: "Page", deed: str, place: int = 0) -> str:
    """Do something with a card, wait for the new list; the item that it was."""
    item = ids(page)[place]
    page.locator("#cards > .card").nth(place).locator(f".{deed}").click()
    page.locator(f'#cards > .card[data-item="{item}"]').wait_for(state="detached")
    return item


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_a_click_changes_the_list_at_once_and_says_so(desk: Desk, motion: str) -> None:
    with desk.page("/shop?user=anna", motion=motion) as page:
        before = ids(page)
        watched = click(page, "watch", 2)
        after = ids(page)
        assert watched not in after
        assert after != before
        assert "You watched" in page.locator("#said").inner_text()
        assert "new" in page.locator("#changed").inner_text()
        unwanted = click(page, "dislike", 1)
        assert unwanted not in ids(page)
        assert "Not for you" in page.locator("#said").inner_text()


def test_the_switch_shows_what_stays_and_that_nothing_goes(desk: Desk) -> None:
    with desk.page("/shop?user=bert") as page:
        click(page, "watch")
        assert page.locator("#leaves").is_hidden()
        page.get_by_role("switch").click()
        goes = page.locator(".goes").inner_text()
        for n in (2, 3):
            click(page, "like")
            assert page.locator("#n-stayed").inner_text() == str(n)
            assert page.locator("#stayed li").count() == n
        assert page.locator(".goes").inner_text() == goes
        assert page.locator("#bytes-gone").inner_text() == "0"
        assert "ε = 7.98" in goes
        page.get_by_role("switch").click()
        assert page.locator("#leaves").is_hidden()


def test_more_repeats_nothing_and_a_click_keeps_the_length(desk: Desk) -> None:
    with desk.page("/shop?user=carl") as page:
        for n in (24, 36):
            page.locator("#more-button").click()
            page.locator("#cards > .card").nth(n - 1).wait_for()
        assert len(ids(page)) == len(set(ids(page))) == 36
        click(page, "watch", 30)
        assert len(ids(page)) == 36


def test_search_finds_by_title_and_an_item_has_its_like(desk: Desk) -> None:
    with desk.page("/shop?user=anna") as page:
        page.get_by_role("searchbox").fill("whale")
        page.locator("#found .title", has_text="Song of the Whale").click()
        page.get_by_role("heading", name="Song of the Whale").wait_for()
        assert page.locator("#similar .card").count() == 6
        page.locator("#deeds .like").click()
        page.locator("#deeds .done").wait_for()
        page.get_by_role("link", name="See how your list has changed").click()
        assert "new" not in ids(page)


def test_reasons_open_by_keyboard_and_take_an_opinion(desk: Desk) -> None:
    with desk.page("/shop?user=anna") as page:
        page.locator("#cards .why").first.focus()
        page.keyboard.press("Enter")
        page.locator("#why .check").wait_for()
        assert page.locator("#why").is_visible()
        page.get_by_role("button", name="Helpful", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_text("Thank you").wait_for()
        page.keyboard.press("Escape")
        assert page.locator("#why").is_hidden()
        assert page.evaluate("document.activeElement.className") == "why"


def test_the_keyboard_alone_goes_everywhere(desk: Desk) -> None:
    with desk.page("/shop?user=bert") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert {"switch", "what", "watch", "like", "dislike", "why"} <= reached
        first = page.locator("#cards .watch").first
        first.focus()
        item = ids(page)[0]
        page.keyboard.press("Enter")
        page.locator(f'#cards > .card[data-item="{item}"]').wait_for(state="detached")
        assert page.evaluate("document.activeElement.className") == "watch"


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_every_page_is_accessible_and_fits(desk: Desk, size: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    faults = []
    for path in PAGES + (OF_TEXTS if (size, scheme) == (PHONE, "dark") else ()):
        with desk.page(path, size, scheme) as page:
            if "/shop" in path:
                page.get_by_role("switch").click()
            faults += [
                f"{path}: {one['id']} at {one['nodes'][0]['target']}" for one in Axe().run(page).response["violations"]
            ]
            if not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"):
                faults.append(f"{path}: runs off the screen")
    assert not faults


def test_a_pin_made_at_the_desk_stands_first_in_the_shop(desk: Desk) -> None:
    with desk.page("/operate/rules") as page:
        page.get_by_label("Name").fill("week")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").get_by_text("problem").first.wait_for()
        page.get_by_label("Position (pin)").fill("1")
        page.get_by_label("Items, by id").fill(desk.items[20])
        page.get_by_role("button", name="Try it").click()
        page.get_by_text("1 item", exact=True).wait_for()
        page.get_by_role("button", name="Save").click()
        page.locator("#notice", has_text="week is in force").wait_for()
        page.goto(f"{desk.home}/shop?user=dora")
        assert ids(page)[0] == desk.items[20]
        assert "Placed here by the shop" in page.locator("#cards .because").first.inner_text()
        page.goto(f"{desk.home}/operate/rules")
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete week").click()
        page.locator("#notice", has_text="week is gone").wait_for()


def test_what_waits_is_decided_by_keyboard_and_who_comes_second_is_told(desk: Desk) -> None:
    with desk.page("/operate/review") as page, desk.page("/operate/review") as second:
        page.get_by_role("heading", name="Fake passports, lot 0").wait_for()
        page.get_by_label("Approve bad 0").focus()
        page.keyboard.press("Enter")
        page.locator("#notice", has_text="bad 0 may be shown").wait_for()
        assert page.locator(".case").count() == 3
        second.get_by_label("Reject bad 0").click()
        second.get_by_role("alert").get_by_text("approved already, by local").wait_for()
        page.get_by_label("Reject bad 1").click()
        page.locator("#notice", has_text="bad 1 stays off all lists").wait_for()
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        form = page.get_by_role("form", name="Edit bad 2")
        form.get_by_label("Title").fill("Passport holders")
        form.get_by_label("Note").fill("asked the shop")
        page.get_by_role("button", name="Save and approve bad 2").click()
        page.locator("#notice", has_text="may be shown with these words").wait_for()
        page.get_by_label("Item, by id").fill("new")
        page.get_by_role("button", name="Hold it back").click()
        page.locator("#notice", has_text="new is off all lists").wait_for()
        page.get_by_label("Approve new").click()
        page.locator("#notice", has_text="new may be shown").wait_for()
        page.goto(f"{desk.home}/operate/review/log")
        page.get_by_text("Every line's hash fits").wait_for()
        assert "asked the shop" in page.locator("tbody").inner_text()


def test_charts_are_drawn_and_refreshed(desk: Desk) -> None:
    with desk.page("/shop?user=anna") as page:
        click(page, "watch")
    with desk.page("/operate") as page:
        ink = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
        for kind in ("requests", "latency", "events", "sources"):
            page.locator(f"#plot-{kind} canvas").wait_for()
            page.wait_for_timeout(100)
            assert page.locator(f"#plot-{kind} canvas").evaluate(ink) > 10
        with page.expect_response("**/operate/live"):
            pass
        assert page.locator(".tiles dd").first.is_visible()
    with desk.page("/operate/sentiment") as page:
        page.locator("#plot-negative canvas").wait_for()
        page.wait_for_timeout(100)
        assert page.locator("#plot-negative canvas").evaluate(ink) > 10
        assert page.get_by_text("not full yet").is_visible()


def test_a_hostile_title_runs_nothing(desk: Desk, tmp_path: Path) -> None:
    with desk.page("/shop?user=" + "%3Cscript%3Ealert(1)%3C/script%3E") as page:
        assert page.get_by_role("heading", name="For you").is_visible()
        click(page, "watch")
