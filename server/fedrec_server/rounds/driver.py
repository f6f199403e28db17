"""Plans and commits round after round, over as many runs of Flower's as crashes make necessary."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from flwr.serverapp import Grid

from fedrec.errors import QuorumError
from fedrec.secagg.graph import LEAST_PARTNERS
from fedrec_server.rounds.exchange import Signatures
from fedrec_server.rounds.masked import MaskedRounds
from fedrec_server.rounds.registrar import Registrar
from fedrec_server.rounds.session import RoundSession, begin, run_round
from fedrec_server.rounds.superlink import OpenRun, SuperLinkControl, SuperLinkError, open_run
from fedrec_server.settings import Coordinator
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import Partner, PartnerBook
from fedrec_server.state.round_book import RoundBook
from fedrec_server.state.store import GENERATION, PAUSED, Database, Office

_log = logging.getLogger(__name__)
_LOOK_S = 0.5


def is_wished(partners: Sequence[Partner], since: str) -> bool:
    """Whether one of them wished for a round after the last committed one began: its data then are not in that one.

    Args:
        since: when the first attempt at that round began, since partners read their data for that one and not for
            further ones; as `now` writes it; "" before the first.
    """
    return any(partner.wished_at > since for partner in partners)


@dataclass
class Driver:
    """One process that drives rounds. What it needs to go on is on disk before anybody is asked.

    Attributes:
        stop: set to end after what is under way.
        ring: tells the gateway that questions wait.
        listen: waits until the gateway has seen something of an answer.
    """

    coordinator: Coordinator
    database: Database
    stop: threading.Event = field(default_factory=threading.Event)
    ring: Callable[[], None] = field(default=lambda: None, repr=False)
    listen: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        self._book, self._rounds = PartnerBook(self.database), RoundBook(self.database)
        self._office, self._keys = Office(self.database), KeyBook(self.database)
        self._federation, self._aggregator = self.coordinator.federation(), self.coordinator.aggregator()
        self._signing_key = self.coordinator.signing_key()
        self._control = SuperLinkControl(self.coordinator.superlink)
        self._run: OpenRun | None = None
        self._spoilers: set[str] = set()  # until this process ends

    def run(self) -> None:
        """Until stopped. Raises RunError: the registry is damaged. StorageError: nothing can be committed."""
        self._control.wait_until_up()
        registrar = Registrar(self._book, self._keys, self._control)
        threading.Thread(target=registrar.run, args=(self.stop,), name="registrar", daemon=True).start()
        self._sign_head()
        if not self._is_done():
            self._grid()  # before the first round needs it
        while not self.stop.is_set():
            if self._is_done() or self._is_paused() or not self._is_quorum_there() or not self._is_wished():
                self.stop.wait(_LOOK_S)
                continue
            try:
                self._one_round()
            except QuorumError as error:
                _log.warning("too few partners answered: %s", error.problem, extra={"event": "no_quorum"})
                self.stop.wait(self.coordinator.settings.rounds.pause_s)
            except (SuperLinkError, httpx.HTTPError) as error:
                if not self._lose_run(error):
                    raise
        self._close_run(completed=True)

    def _one_round(self) -> None:
        session = self._session()
        number, state, server_state = begin(session)
        if number == 1:
            self._sign_head()
        if run_round(self._grid(), session, number, state, server_state) is not None:
            self._sign_head()

    def _session(self) -> RoundSession:
        terms, settings = self._federation.terms, self.coordinator.settings.rounds
        approved = self._asked()
        keys = {partner.name: bytes.fromhex(partner.signing_key) for partner in approved}
        return RoundSession(
            run=self._run_name(),
            mode=terms.mode,
            seed=terms.seed,
            schedule=self._federation.schedule,
            registry=self.coordinator.registry,
            initial_state=self._federation.initial,
            spec=terms.spec,
            aggregator=self._aggregator,
            partners={int(partner.node_id): partner.name for partner in approved},
            partners_per_round=min(settings.partners_per_round, len(approved)),
            quorum=self._quorum(),
            max_attempts=settings.attempts,
            round_timeout_s=settings.timeout_s,
            max_norm=settings.max_delta_norm,
            privacy_plan_hash=terms.plan_hash,
            statement=self._federation.statement,
            on_event=self._note,
            stop=self._is_interrupted,
            signatures=Signatures(self._signing_key, keys),
            wait=self.listen,
            masked=self._masked(keys),
            spoilers=self._spoilers,
            attempts_before=lambda number: self._rounds.attempts(self._run_name(), number),
        )

    def _masked(self, identities: Mapping[str, bytes]) -> MaskedRounds | None:
        terms = self._federation.terms
        if terms.mode != "secagg" or terms.plan is None or terms.range_users is None:
            return None
        step_s = self.coordinator.settings.rounds.step_timeout_s
        return MaskedRounds(terms.plan, terms.range_users, identities, step_s)

    def _grid(self) -> Grid:
        if self._run is None or self._run.lost.is_set():
            self._close_run(completed=False)
            self._run = open_run(self.coordinator.superlink, self._control, self.ring)
            _log.info("Flower's run %d is ours", self._run.run_id, extra={"event": "run_opened"})
        return self._run.grid

    def _lose_run(self, error: Exception) -> bool:
        """Whether it was the SuperLink that failed, so that a new run goes on from the last committed round."""
        if self._control.is_up() and self._run is not None and not self._run.lost.is_set():
            _log.warning("a call of Flower's failed: %s", type(error).__name__, extra={"event": "run_lost"})
        self._close_run(completed=False)
        self.stop.wait(_LOOK_S)
        deadline = time.monotonic() + 120
        while not self._control.is_up() and not self.stop.is_set():
            if time.monotonic() > deadline:
                return False
            self.stop.wait(_LOOK_S)
        return True

    def _close_run(self, *, completed: bool) -> None:
        if self._run is not None:
            self._run.close(completed=completed)
            self._run = None

    def _sign_head(self) -> None:
        """Also after a crash between commit and signature."""
        if self.coordinator.registry.head() is not None:
            self.coordinator.heads.sign(self._signing_key, self._federation.terms.name, self._generation())

    def _note(self, event: Mapping[str, Any]) -> None:
        """Durably first, since `round_started` uses up the attempt's number."""
        kind, number, attempt = event["event"], event["round"], event.get("attempt", 0)
        place = (self._run_name(), number, attempt)
        if kind == "round_started":
            self._rounds.begin(*place, event["part"])
        elif kind == "round_committed":
            kept = ("partners", "reasons", "seconds", "bytes_up", "bytes_down", "adapter_hash", "step_norm")
            self._rounds.end(*place, status="committed", **{name: event[name] for name in kept})
        elif kind == "round_failed":
            self._rounds.end(*place, status="failed", reasons=event["reasons"])
        elif kind in ("partner_done", "partner_refused"):
            self._book.see(event["partner"], event.get("reason", ""))
        known = {name: event[name] for name in ("partner", "attempt", "seconds", "reason") if name in event}
        _log.info("%s", kind, extra={"event": kind, "round": number, "part": event["part"], **known})

    def _asked(self) -> list[Partner]:
        return [partner for partner in self._book.partners("approved") if partner.node_id]

    def _quorum(self) -> int:
        plan = self._federation.terms.plan
        return plan.quorum + plan.dishonest if plan else self.coordinator.settings.rounds.quorum

    def _is_quorum_there(self) -> bool:
        least = LEAST_PARTNERS if self._federation.terms.mode == "secagg" else 1
        return len(self._asked()) >= max(self._quorum(), least)

    def _is_wished(self) -> bool:
        """Whether somebody who takes part wishes for a round, where rounds wait for that."""
        if not self.coordinator.settings.rounds.on_wish:
            return True
        latest = self._rounds.committed(1)
        since = self._rounds.began(latest[-1]["run"], latest[-1]["round"]) if latest else ""
        return is_wished(self._asked(), since)

    def _is_done(self) -> bool:
        head = self.coordinator.registry.head()
        return head is not None and head.round >= len(self._federation.schedule)

    def _is_paused(self) -> bool:
        return self._office.setting(PAUSED) == "yes"

    def _is_interrupted(self) -> bool:
        return self.stop.is_set() or (self._run is not None and self._run.lost.is_set()) or self._is_paused()

    def _generation(self) -> int:
        return int(self._office.setting(GENERATION, "1"))

    def _run_name(self) -> str:
        return f"{self._federation.terms.name}/{self._generation()}"
