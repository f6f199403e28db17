"""The partner's pages over a finished run, as a person sees them: `python -m fedrec_sim.rehearsal.shop runs/demo docs`.

It takes the screenshots of the README: everything in them was answered by the run's own adapter.
"""

import asyncio
import html
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import uvicorn

from fedrec.recommend.shelf import Item
from fedrec_client.serving.http.app import make_app
from fedrec_client.serving.http.keys import KeyRing
from fedrec_client.serving.http.metrics import ServingMetrics
from fedrec_client.serving.http.server import listen
from fedrec_client.serving.pages.outside import Outside
from fedrec_client.serving.routes import all_routes
from fedrec_client.serving.service import Served, Service
from fedrec_client.serving.settings import HttpSettings, ServingSettings, default_settings
from fedrec_sim.queries.reading import private_correction
from fedrec_sim.rehearsal.pages import chromium
from fedrec_sim.run import read_run
from fedrec_sim.serve_run import seed_events, served_run, served_statement
from fedrec_sim.world import load_world, on_any_device

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_START_S = 120.0
_VISITS_PER_S, _CLICKS = 6.0, 0.35
_ARMS = [{"name": "model", "share": 0.5}, {"name": "diverse", "share": 0.5, "ranking": {"diversity": "mmr"}}]


def _nothing(_: Service) -> None:
    return None


async def _nothing_more(_: Service) -> None:
    return None


@contextmanager
def pages_served(
    folder: Path,
    served: Served,
    settings: ServingSettings,
    outside: Outside,
    seed: Callable[[Service], None] = _nothing,
    prepare: Callable[[Service], Awaitable[None]] = _nothing_more,
) -> Iterator[str]:
    """The whole app with APIs and pages, in a thread of its own on a free port; gives its address.

    Args:
        seed: what is done before the service opens, with its store.
        prepare: what is done with the open service before the first request.
    Raises: RuntimeError: it did not start.
    """
    is_up, stop, failed = threading.Event(), threading.Event(), list[BaseException]()
    listener = listen(HttpSettings(port=0))

    async def main() -> None:
        service = Service(folder, settings)
        try:
            seed(service)
            await service.open(served)
            await prepare(service)
            metrics = ServingMetrics(lambda: None)
            ring = KeyRing(service.store.keys.find, lambda: bool(service.store.keys.every()))
            app = make_app(
                settings,
                all_routes(service, metrics, ring, outside),
                ring=ring,
                metrics=metrics,
                is_ready=service.is_ready,
                on_stop=lambda: None,
            )
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
            answering = asyncio.create_task(server.serve(sockets=[listener]))
            is_up.set()
            await asyncio.to_thread(stop.wait)
            server.should_exit = True
            await answering
        finally:
            await asyncio.to_thread(service.close)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 -- told in the thread that waits
            failed.append(error)
            is_up.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        if not is_up.wait(_START_S) or failed:
            raise RuntimeError("the service did not start") from (failed[0] if failed else None)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()


def shoot(run_folder: Path, target: Path, visits_s: float = 120.0) -> None:
    """`shop.png` and `operate.png` of a run, after people have come for a while.

    Raises: ConfigError: no Chromium. RunError: no such run, or it has no adapter.
    """
    run = read_run(run_folder)
    world = load_world(on_any_device(run.config))
    settings = ServingSettings.model_validate({**default_settings().model_dump(), "arms": _ARMS})
    statement = served_statement(run_folder, private_correction(run_folder))

    def seed(service: Service) -> None:
        seed_events(service.store.of("default"), world)

    async def add_newcomers(service: Service) -> None:
        await service.of("default").intake.put_items(_newcomers(time.time()))

    with tempfile.TemporaryDirectory() as folder:
        served, outside = served_run(run, world, settings), Outside(statement=lambda: statement)
        with (
            pages_served(Path(folder), served, settings, outside, seed, add_newcomers) as home,
            chromium() as browser,
        ):
            _shoot_shop(browser, home, target)
            let_people_come(home, [str(number) for number in range(1, 400)], visits_s)
            _shoot_desk(browser, home, target)


def let_people_come(home: str, people: Sequence[str], for_s: float) -> None:
    """Made visitors who open the shop and click here and there, rather on top; the same ones each time."""
    dice, until = random.Random(7), time.monotonic() + for_s
    with httpx.Client(base_url=home, timeout=30) as client:
        while time.monotonic() < until:
            who = dice.choice(people)
            page = client.get("/shop", params={"user": who}).text
            listed = [html.unescape(one) for one in re.findall(r'<li class="card" data-item="([^"]*)"', page)]
            ranking = re.search(r'"ranking": "([0-9a-f]{32})"', html.unescape(page))
            if listed and ranking and dice.random() < _CLICKS:
                place = min(len(listed) - 1, int(dice.expovariate(0.4)))
                deed = dice.choices(("watch", "like", "dislike"), (6, 2, 1))[0]
                form = {"type": deed, "item": listed[place], "user": who, "ranking": ranking[1]}
                client.post("/shop/events", data=form)
            time.sleep(dice.expovariate(_VISITS_PER_S))


def _shoot_shop(browser: "Browser", home: str, target: Path) -> None:
    """Two clicks, with the switch on."""
    page = _open(browser, f"{home}/shop")
    page.get_by_role("switch").click()
    for place in (1, 2):
        page.locator("#cards .card").nth(place).locator(".watch").click()
        page.locator("#n-stayed", has_text=str(place)).wait_for()
    page.wait_for_timeout(800)
    page.screenshot(path=target / "shop.png")


def _shoot_desk(browser: "Browser", home: str, target: Path) -> None:
    page = _open(browser, f"{home}/operate")
    page.locator("#plot-requests canvas").wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=target / "operate.png")


def _open(browser: "Browser", address: str) -> "Page":
    page = browser.new_context(viewport={"width": 1320, "height": 1180}, device_scale_factor=1.5).new_page()
    page.goto(address)
    return page


def _newcomers(now: float) -> list[Item]:
    """Films that the run's catalogue does not have: nobody has watched them, their text alone speaks."""
    told = (
        ("The Matrix (1999)", ("Action", "Sci-Fi", "Thriller")),
        ("Being John Malkovich (1999)", ("Comedy", "Fantasy")),
        ("All About My Mother (1999)", ("Comedy", "Drama")),
    )
    return [Item(f"new-{n}", title, categories=kinds, timestamp=now - n) for n, (title, kinds) in enumerate(told)]


if __name__ == "__main__":
    shoot(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:]))
