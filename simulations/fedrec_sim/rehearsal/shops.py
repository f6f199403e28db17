"""A partner's service as its shop sees it, and people who come to all shops while everything else goes on."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from fedrec.errors import RunError
from fedrec_client.settings import Node
from fedrec_sim.rehearsal.stage import Stage, change_lines, free_ports, wait_until

_TIMEOUT_S = 30.0
_VISITS_PER_S, _NEW_PEOPLE = 4.0, 5
VISITOR = "zz-visitor"
"""Begins the names of new people; sorts behind all others, so that they are read together."""


@dataclass
class Shop:
    """One partner's service, called with keys of its own as a shop's backend and its operator call it."""

    node: Node
    address: str
    key: str = field(repr=False)
    admin_key: str = field(repr=False)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.address, timeout=_TIMEOUT_S)

    @property
    def name(self) -> str:
        """Of the partner."""
        return self.node.settings.name

    def ask(self, method: str, path: str, body: Any = None, *, as_admin: bool = False) -> httpx.Response:
        """One call. Raises httpx.HTTPError: nobody answers."""
        key = self.admin_key if as_admin else self.key
        return self._client.request(method, path, json=body, headers={"x-api-key": key})

    def told(self, method: str, path: str, body: Any = None, *, as_admin: bool = False) -> Any:
        """The answer's JSON. Raises RunError: it was none that a shop could use."""
        answer = self.ask(method, path, body, as_admin=as_admin)
        if answer.is_error:
            raise RunError(f"{self.name}: {method} answers {answer.status_code}", "read logs/serving.log of its node")
        return answer.json()

    def is_ready(self) -> bool:
        """Whether it answers with lists."""
        try:
            return self._client.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def make_shop(stage: Stage, name: str, changes: Mapping[str, str]) -> Shop:
    """Let a partner serve when it starts: two keys, a port of its own, `local.serve`.

    Args:
        changes: lines of `serving.toml` as it is written with its defaults -> what they are to be.
    """
    node, (port,) = stage.node(name), free_ports(1)
    key, admin_key = (
        stage.client_says(name, "api-keys", "create", who, *(word for one in scopes for word in ("--scope", one)))
        for who, scopes in (("shop", ("read", "write")), ("ops", ("admin",)))
    )
    change_lines(node.serving / "serving.toml", {"port = 8088": f"port = {port}", **changes})
    change_lines(node.folder / "client.toml", {"serve = false": "serve = true"})
    return Shop(node, f"http://127.0.0.1:{port}", key["secret"], admin_key["secret"])


@dataclass
class Visitors:
    """People who ask for lists all the time, and now and then turn to what is on them. Used as a context.

    Args:
        shops: partner -> service.
        regulars: partner -> people that it has had before.
    Attributes:
        statuses: answers by status; "none" where nobody answered.
        faults: what nobody should have seen: 5xx, or no answer, while the service was not down on purpose.
        acknowledged: partner -> ids of events that the service said it had taken.
        seconds: of every list.
        down: partners that are down on purpose.
    """

    shops: Mapping[str, Shop]
    regulars: Mapping[str, Sequence[str]]
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _threads: list[threading.Thread] = field(default_factory=list, repr=False)

    def __enter__(self) -> "Visitors":
        for number, name in enumerate(self.shops):
            self.acknowledged[name] = []
            self._threads.append(threading.Thread(target=self._come, args=(name, random.Random(number)), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    def _come(self, name: str, dice: random.Random) -> None:
        """Every fifth is new here; of these every second one turns to the first item that it is shown."""
        count = 0
        while not self._stop.wait(dice.expovariate(_VISITS_PER_S)):
            is_new = dice.random() < 0.4
            user = f"{VISITOR}-{dice.randrange(_NEW_PEOPLE)}" if is_new else dice.choice(self.regulars[name])
            began = time.monotonic()
            answer = self._ask(name, "GET", f"/v1/recommend/{user}?n=10")
            if answer is None or answer.status_code != 200:
                continue
            self.seconds.append(time.monotonic() - began)
            told = answer.json()
            if is_new and told["items"] and dice.random() < 0.5:
                count += 1
                event = {"id": f"{name}-{count}", "type": "like", "user": user, "ranking": told["ranking"]}
                item = dice.choice(told["items"][:5])["id"]
                taken = self._ask(name, "POST", "/v1/events", [{**event, "item": item}])
                if taken is not None and taken.status_code == 200:
                    self.acknowledged[name].append(event["id"])

    def _ask(self, name: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        was_down = name in self.down
        try:
            answer = self.shops[name].ask(method, path, body)
        except httpx.HTTPError as error:
            self._count(name, "none", type(error).__name__, is_fault=True, was_down=was_down)
            return None
        status = str(answer.status_code)
        self._count(name, status, status, is_fault=answer.status_code >= 500, was_down=was_down)
        return answer

    def _count(self, name: str, status: str, words: str, *, is_fault: bool, was_down: bool) -> None:
        is_down = was_down or name in self.down
        self.statuses[f"{status} while it was down" if is_down and is_fault else status] += 1
        if is_fault and not is_down:
            self.faults.append(f"{name}: {words}")


def wait_until_ready(shops: Sequence[Shop], timeout_s: float = 300.0) -> None:
    """Raises RunError: one of them is not in time."""
    wait_until(lambda: all(shop.is_ready() for shop in shops), "every service to be ready", timeout_s)
