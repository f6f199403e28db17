"""The warm worker of a partner's node: loads data and model once, then answers on a socket of its own user."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from typing import Any

from fedrec.errors import DataError, FedrecError, PrivacyError, ProtocolError
from fedrec.model.adapter import AdapterState
from fedrec.privacy.ledger import PrivacyLedger
from fedrec.signing import read_secret
from fedrec.wire import RoundPlan, SumHeader
from fedrec_client.agreement import Agreement, round_epsilon
from fedrec_client.coordinator_keys import CoordinatorKeys
from fedrec_client.coordinator_link import CoordinatorLink, UnreachableError
from fedrec_client.desk import NodeDesk, SeenRounds
from fedrec_client.peers import Peers, refuse_too_few
from fedrec_client.rehearsing import Nonsense, PowerOfTwo
from fedrec_client.settings import PAUSED, Node
from fedrec_client.socket_link import SECRET, SOCKET, pack, unpack
from fedrec_client.sums import IntegerSource, RoundWorker, SumDesk, SumRules, numbers_of

_log = logging.getLogger(__name__)


def run_worker(node: Node) -> None:
    """Load, then serve until terminated. Raises as what it loads."""
    desk = make_desk(node)
    _warm_up(desk, node)
    path = node.run / SOCKET
    path.unlink(missing_ok=True)
    before = os.umask(0o177)  # the socket is for this user from the first moment
    try:
        listener = Listener(str(path), "AF_UNIX", authkey=read_secret(node.run / SECRET))
    finally:
        os.umask(before)
    _log.info("the worker listens", extra={"event": "worker_up"})
    with listener:
        while True:
            try:
                connection = listener.accept()
            except (AuthenticationError, EOFError, OSError):
                _log.warning("somebody without the secret knocked", extra={"event": "stranger"})
                continue
            threading.Thread(target=_serve, args=(connection, desk), daemon=True).start()


def _warm_up(desk: NodeDesk, node: Node) -> None:
    """What is slow the first time happens before the first round: accountants, and every record of the ledger."""
    if plan := desk.terms.plan:
        for part in plan.parts:
            round_epsilon(part, desk.policy.delta)
        open_ledger(node).remaining()


def make_desk(node: Node) -> NodeDesk:
    """Everything that a round needs, from the partner's folder."""
    agreement, settings = Agreement.read(node), node.settings
    agreement.hold_against(settings.policy)
    worker, n_users = _rehearsing(node, agreement) if settings.rehearsal.power >= 0 else _training(node, agreement)
    if n_users < settings.policy.min_users:  # said here and not to the coordinator: how many there are is private
        raise DataError("fewer users than policy.min_users", "lower it, or stay out until there are more")
    keys = CoordinatorKeys(node)
    return NodeDesk(
        partner=settings.name,
        coordinator=keys.current,
        follow=lambda: _follow(node, keys),
        key=node.signing_key(),
        terms=agreement.terms,
        policy=settings.policy,
        worker=worker,
        seen=SeenRounds(node.state / "rounds.json"),
        is_paused=lambda: (node.state / PAUSED).exists(),
        sums=_sums(node, agreement, worker),
    )


def _sums(node: Node, agreement: Agreement, source: IntegerSource) -> SumDesk | None:
    """Where the terms ask for sums under masks. Raises ProtocolError: too few peers are accepted."""
    terms = agreement.terms
    if terms.mode != "secagg" or terms.plan is None or terms.range_users is None:
        return None
    peers = Peers(node)
    refuse_too_few(peers, terms.plan.quorum + terms.plan.dishonest)
    rules = SumRules(terms.plan, numbers_of(terms.parts), terms.range_users)
    return SumDesk(node.settings.name, node.signing_key(), peers.keys, rules, source)


def _follow(node: Node, keys: CoordinatorKeys) -> bool:
    """Whether there is a newer key; a coordinator that does not answer leaves everything as it is."""
    link = CoordinatorLink(node)
    try:
        return keys.follow(link)
    except UnreachableError as error:
        _log.warning("no newer key: %s", error.problem, extra={"event": "no_keys"})
        return False
    finally:
        link.close()


def open_ledger(node: Node) -> PrivacyLedger:
    """The one ledger of the partner's data, made when rows were first imported. Raises LedgerError."""
    return PrivacyLedger.open(node.ledger, partner=node.owner.settings.name, dataset="data")


def _training(node: Node, agreement: Agreement) -> tuple[RoundWorker, int]:
    if agreement.terms.task is not None:
        from fedrec_client.trained_head import make_task_worker

        return make_task_worker(node, agreement, open_ledger(node))
    from fedrec_client.trained import make_worker

    return make_worker(node, agreement, open_ledger(node))


def _rehearsing(node: Node, agreement: Agreement) -> tuple[RoundWorker, int]:
    """Rows are counted and a ledger is charged, but what is answered is a public number."""
    facts = json.loads((node.data / "facts.json").read_text())
    ledger = open_ledger(node) if agreement.terms.plan else None
    worker = PowerOfTwo(node.settings.name, node.settings.rehearsal.power, agreement.terms, ledger)
    return Nonsense(worker) if node.settings.rehearsal.garbage else worker, int(facts["users"])


def _serve(connection: Connection, desk: NodeDesk) -> None:
    """One question of one caller. Whatever fails, only our refusals' words go back, and of others the class."""
    with connection:
        try:
            head, body = unpack(connection.recv_bytes())
            answer, content = _answers()[str(head.get("ask"))](desk, head, body)
        except (PrivacyError, ProtocolError) as error:
            answer, content = {"refused": type(error).__name__, "problem": error.problem}, b""
            _log.warning("refused: %s", error.problem, extra={"event": "refused", "reason": error.problem})
        except Exception as error:  # noqa: BLE001  # see above
            words = error.problem if isinstance(error, FedrecError) else type(error).__name__
            _log.error("a question failed here: %s", words, exc_info=True, extra={"event": "failed"})
            answer, content = {"refused": "FedrecError", "problem": type(error).__name__}, b""
        try:
            connection.send_bytes(pack(answer, content))
        except OSError:
            _log.warning("nobody waits for the answer", extra={"event": "caller_gone"})


def _answers() -> dict[str, Callable[[NodeDesk, dict[str, Any], bytes], tuple[dict[str, Any], bytes]]]:
    return {"round": _round, "sum": _sum, "status": lambda desk, _head, _body: (desk.status(), b"")}


def _round(desk: NodeDesk, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    started = time.monotonic()
    plan, state = RoundPlan.from_record(head["plan"]), AdapterState.from_bytes(body)
    header, adapter_delta, signature = desk.answer(plan, state, str(head["signature"]))
    place = {"round": plan.round, "attempt": plan.attempt, "part": plan.part}
    _log.info("answered", extra={"event": "answered", **place, "seconds": round(time.monotonic() - started, 3)})
    return {"header": header.to_record(), "signature": signature}, adapter_delta.to_bytes()


def _sum(desk: NodeDesk, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    started, cut = time.monotonic(), int(head["body_bytes"])
    asked, state = SumHeader.from_record(head["header"]), AdapterState.from_bytes(body[cut:]) if body[cut:] else None
    header, content, signature = desk.add(asked, body[:cut], state, str(head["signature"]))
    place = {"round": header.round, "attempt": header.attempt, "step": header.step}
    _log.info("answered", extra={"event": "answered", **place, "seconds": round(time.monotonic() - started, 3)})
    return {"header": header.to_record(), "signature": signature}, content
