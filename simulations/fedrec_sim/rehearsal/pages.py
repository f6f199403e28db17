"""The admin pages of a real coordinator as a person uses them, in headless Chromium, with screenshots."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedrec.errors import ConfigError
from fedrec_sim.rehearsal.federations import deal_rows, sums_federation
from fedrec_sim.rehearsal.rehearse import Say, Timeline, all_are_connected, settle
from fedrec_sim.rehearsal.stage import Stage, said, set_stage, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ROUNDS = 3
_NAMES = ("client-1", "client-2")
_PAGES = ("/", "/partners", "/rounds", "/versions", "/audit")
_PASSWORD = "a password of a rehearsal"
_WIDE, _PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
# Of WCAG 2.2, 2.5.8: the least side of what a finger has to meet, in CSS pixels.
_LEAST_TARGET = 24
_WAIT_MS = 60_000.0
_CLIENT = [sys.executable, "-c", "from fedrec_client.cli import main; main()"]


def rehearse_pages(folder: Path, *, say: Say) -> dict[str, Any]:
    """Log in, let rounds run, look at them, invite and approve, roll back, by keyboard and on a phone.

    Args:
        folder: new; screenshots come into `shots/` in it.
    Returns: `checks`, name -> whether it holds, and `screenshots`, file names.
    Raises: ConfigError: no playwright or no Chromium. RunError: a command failed.
    """
    timeline = Timeline(say)
    catalog, dealt = deal_rows(folder, [*_NAMES, *(f"absent-{number}" for number in range(8))])
    rows = {name: dealt[name] for name in _NAMES}  # a few users each: the pages show none of them
    sums_federation(catalog, rounds=_ROUNDS, quorum=2).write(folder / "federation")
    with chromium() as browser:
        stage = set_stage(folder, folder / "federation", rows, say=timeline.note)
        try:
            settle(stage, timeout_s=20.0, powers={name: number for number, name in enumerate(_NAMES)})
            for client in stage.clients.values():
                client.start()
            wait_until(lambda: all_are_connected(stage), "every partner to connect")
            walk = Walk(stage, browser, folder / "shots", timeline.note)
            walk.all_of_it()
        finally:
            stage.close()
    return {"checks": walk.checks, "screenshots": sorted(path.name for path in walk.shots.iterdir())}


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless one: the machine's own, or the one that playwright brought. Raises ConfigError: neither is there."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError as error:
        raise ConfigError(
            "playwright is not installed", "pip install playwright, and apt-get install chromium"
        ) from error
    own = shutil.which("chromium") or shutil.which("google-chrome")
    # Chromium's sandbox does not start for root; the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=own, args=arguments)
        except Error as error:
            raise ConfigError("Chromium does not start", "apt-get install chromium") from error
        with browser:
            yield browser


@dataclass
class Walk:
    """One person at the pages.

    Attributes:
        shots: folder of the screenshots.
        checks: what was found to hold.
    """

    stage: Stage
    browser: "Browser"
    shots: Path
    say: Say
    checks: dict[str, bool] = field(default_factory=dict)
    _complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shots.mkdir(parents=True, exist_ok=True)
        self.home = f"http://localhost:{self.stage.coordinator.settings.local.admin_port}"
        self.page = self._open(_WIDE, "light")

    def all_of_it(self) -> None:
        """Every step, in the order in which a person would take them."""
        steps: tuple[Callable[[], None], ...] = (
            self.come_in,
            self.let_rounds_run,
            self.look_at_figures,
            self.take_a_partner_in,
            self.roll_back,
            self.change_the_password,
            self.read_everywhere,
            self.use_a_phone,
            self.lose_the_coordinator,
        )
        for step in steps:
            step()
            self.say(f"pages: {step.__name__.replace('_', ' ')}")
        self.checks["nothing_blocked_and_no_script_error"] = not self._complaints
        for complaint in self._complaints:
            self.say(f"pages: {complaint}")

    def come_in(self) -> None:
        """A wrong secret opens nothing; the token does, with the keyboard alone."""
        page = self.page
        page.goto(self.home)
        self.checks["door_before_everything"] = page.url == f"{self.home}/login"
        self._shoot("login")
        page.keyboard.type("a wrong secret")  # the field has the focus
        page.keyboard.press("Enter")
        words = page.get_by_role("alert")
        words.wait_for()
        self.checks["wrong_secret_is_refused"] = "neither the password" in words.inner_text()
        self._complaints.clear()  # the browser itself notes the 401
        page.keyboard.type((self.stage.coordinator.keys / "admin.token").read_text())
        page.keyboard.press("Enter")
        self._arrive("/")

    def let_rounds_run(self) -> None:
        """Resume with the keyboard, and see rounds live."""
        page = self.page
        self.checks["paused_is_seen"] = page.locator("#live .state").first.inner_text() == "paused"
        page.locator("#resume").focus()
        page.wait_for_timeout(2500)  # a refresh comes by meanwhile, and must not take the focus
        self.checks["focus_survives_a_refresh"] = page.evaluate("document.activeElement.id") == "resume"
        page.keyboard.press("Enter")
        heading = page.get_by_role("heading", name=re.compile(r"Round \d, attempt \d"))
        heading.wait_for(timeout=_WAIT_MS)
        self.checks["round_is_seen_live"] = True
        self._shoot("live")
        page.locator("#live .state", has_text="done").wait_for(timeout=_WAIT_MS)
        self.checks["rounds_are_seen_to_end"] = page.locator("#live dd", has_text=str(_ROUNDS)).count() > 0

    def look_at_figures(self) -> None:
        """Plots are drawn, and the same stands in a table."""
        page = self.page
        page.locator("#plot-epsilon canvas").wait_for(timeout=_WAIT_MS)
        page.locator("#table summary").focus()
        page.keyboard.press("Enter")
        rows = page.locator("#figures tbody tr")
        rows.nth(_ROUNDS - 1).wait_for(timeout=_WAIT_MS)
        page.wait_for_timeout(500)
        ink = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
        drawn = [page.locator(f"#plot-{kind} canvas").evaluate(ink) > 10 for kind in ("epsilon", "step", "seconds")]
        self.checks["plots_are_drawn"] = all(drawn)
        self.checks["same_figures_as_a_table"] = rows.count() == _ROUNDS
        self._shoot("overview")

    def take_a_partner_in(self) -> None:
        """Invite, let it enrol with the token from the page, approve, suspend, remove."""
        page, name = self.page, "newcomer"
        page.goto(f"{self.home}/partners")
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Invite").click()
        token = page.locator("#token").inner_text()
        self._shoot("invitation")
        place = self.stage.folder / name
        said([*_CLIENT, "init", str(place), "--invite", token, "--json"])
        page.locator("#done").click()
        page.locator("#token").wait_for(state="detached")
        for button, status in (("Approve", "approved"), ("Suspend", "suspended"), ("Remove", "removed")):
            page.once("dialog", lambda dialog: dialog.accept())
            page.get_by_role("button", name=f"{button} {name}").click()
            row = page.get_by_role("row", name=re.compile(name))
            row.get_by_text(status, exact=True).wait_for()
        self.checks["partner_comes_and_goes"] = True
        self.checks["token_is_shown_once"] = token not in page.content()
        self._shoot("partners")

    def roll_back(self) -> None:
        """Not while rounds run; paused it is done, and partners follow."""
        page = self.page
        page.goto(f"{self.home}/versions")
        self.checks["no_rollback_while_rounds_run"] = page.locator("#roll-back-2").is_disabled()
        page.goto(self.home)
        page.once("dialog", lambda dialog: dialog.accept())
        page.locator("#pause").click()
        page.get_by_role("status").get_by_text("Rounds are paused").wait_for()
        page.goto(f"{self.home}/versions")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.locator("#roll-back-2").click()
        self.checks["a_no_is_a_no"] = self.stage.server_says("status")["round"] == _ROUNDS
        page.once("dialog", lambda dialog: dialog.accept())
        page.locator("#roll-back-2").click()
        page.get_by_role("status").get_by_text("generation 2").wait_for()
        self._shoot("versions")
        wait_until(lambda: all(self._held(name) == 2 for name in _NAMES), "partners to follow the rollback", 60.0)
        self.checks["partners_follow_the_rollback"] = True

    def change_the_password(self) -> None:
        """A new password ends the session, and opens the door."""
        folder = str(self.stage.coordinator.folder)
        command = [sys.executable, "-c", "from fedrec_server.cli import main; main()", "password", "--dir", folder]
        subprocess.run(command, input=f"{_PASSWORD}\n", text=True, check=True, capture_output=True)
        self.page.goto(f"{self.home}/audit")
        self.checks["new_password_ends_sessions"] = self.page.url == f"{self.home}/login"
        self.page.get_by_label("Password").fill(_PASSWORD)
        self.page.keyboard.press("Enter")
        self._arrive("/")

    def read_everywhere(self) -> None:
        """The audit log names every deed; no page has a fault that axe finds."""
        from axe_playwright_python.sync_playwright import Axe

        self.page.goto(f"{self.home}/audit")
        words = self.page.locator("main").inner_text()
        deeds = ("invited", "enrolled", "partner approved", "partner removed", "rolled back", "logged in")
        self.checks["audit_log_names_every_deed"] = all(deed in words for deed in deeds)
        self._shoot("audit")
        faults = []
        for path in _PAGES:
            self.page.goto(f"{self.home}{path}")
            found = Axe().run(self.page).response["violations"]
            faults += [f"{path}: {one['id']} at {one['nodes'][0]['target']}" for one in found]
        self.checks["accessible_by_axe"] = not faults
        for fault in faults:
            self.say(f"pages: {fault}")

    def use_a_phone(self) -> None:
        """Nothing runs off the screen, and everything is large enough for a finger."""
        wide, self.page = self.page, self._open(_PHONE, "dark", self.page)
        fits, targets = [], []
        for path in _PAGES:
            self.page.goto(f"{self.home}{path}")
            if path == "/":
                self.page.locator("#plot-epsilon canvas").wait_for(timeout=_WAIT_MS)
            fits.append(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
            for target in self.page.locator("button:visible, nav a:visible, summary:visible").all():
                box = target.bounding_box()
                targets.append(box is not None and min(box["width"], box["height"]) >= _LEAST_TARGET)
            self._shoot(f"phone-{path.strip('/') or 'overview'}")
        self.checks["fits_a_phone"], self.checks["large_enough_for_a_finger"] = all(fits), all(targets)
        self.page = wide

    def lose_the_coordinator(self) -> None:
        """A page that is open says that nobody answers, and recovers; then log out."""
        page = self.page
        page.goto(self.home)
        self.stage.server.stop()
        page.get_by_role("status").get_by_text("does not answer").wait_for(timeout=_WAIT_MS)
        self._shoot("gone")
        self._complaints.clear()  # the browser itself notes each call that failed
        self.stage.server.start()
        self._arrive("/login")  # sessions end with the process
        self.checks["page_says_that_nobody_answers"] = True
        time.sleep(1.0)
        self._complaints.clear()
        page.get_by_label("Password").fill(_PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Log out").click()
        self._arrive("/login")
        page.goto(f"{self.home}/partners")
        self.checks["logged_out_is_out"] = page.url == f"{self.home}/login"

    def _arrive(self, path: str) -> None:
        """Wait for a page by its address: two polls may both lead there, and the first way is then given up."""
        from playwright.sync_api import expect

        expect(self.page).to_have_url(f"{self.home}{path}", timeout=_WAIT_MS)

    def _held(self, name: str) -> int:
        told = self.stage.client_says(name, "status")["adapter"]
        return int(told["round"]) if told["round"] is not None else -1

    def _open(self, size: Any, scheme: Any, like: "Page | None" = None) -> "Page":
        state = like.context.storage_state() if like else None
        context = self.browser.new_context(viewport=size, color_scheme=scheme, storage_state=state)
        page = context.new_page()
        page.on("console", lambda told: self._complain(told.type, told.text))
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        return page

    def _complain(self, kind: str, words: str) -> None:
        if kind in ("error", "warning"):
            self._complaints.append(words)

    def _shoot(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)
