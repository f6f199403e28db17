"""Lets Flower know whom we approved, and forget whom we removed and whose keys were changed."""

import base64
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fedrec.errors import FedrecError
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import Partner, PartnerBook

_log = logging.getLogger(__name__)
_LOOK_S = 0.5


class Nodes(Protocol):
    """What Flower's SuperLink knows of nodes. Raises, in every method: SuperLinkError."""

    def nodes(self) -> dict[bytes, int]:
        """Public key -> id, of all that may connect."""

    def register(self, public_key: bytes) -> int:
        """Let a node with this key connect; its id."""

    def unregister(self, node: int) -> None:
        """Never again."""


@dataclass(frozen=True)
class Registrar:
    """Brings Flower's nodes in line with the partners."""

    book: PartnerBook
    keys: KeyBook
    control: Nodes

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.wait(_LOOK_S):
            try:
                self.look()
            except FedrecError as error:
                _log.warning("registering: %s", error.problem, extra={"event": "registrar_failed"})

    def look(self) -> None:
        """Once. Flower's nodes are listed once for all: the list is as long as there are partners.

        Raises: StorageError. SuperLinkError: it does not answer.
        """
        retired = self.keys.retired_nodes()
        waiting = [partner for partner in self.book.partners() if _is_to_join(partner) or _is_to_go(partner)]
        known = self.control.nodes() if waiting or retired else {}
        for node in retired:  # their keys count no more; the gateway keeps them out already
            if int(node) in known.values():
                self.control.unregister(int(node))
            self.keys.forget_node(node)
        for partner in waiting:
            try:
                self._register(partner, known)
            except FedrecError as error:  # one that cannot be registered keeps nobody else out
                told = {"event": "registrar_failed", "partner": partner.name}
                _log.warning("registering %s: %s", partner.name, error.problem, extra=told)

    def _register(self, partner: Partner, known: Mapping[bytes, int]) -> None:
        key = base64.b64decode(partner.node_key)
        if _is_to_join(partner):  # one that is known was registered by a driver that did not live to write it down
            node = known[key] if key in known else self.control.register(key)
            if not self.book.give_node(partner.name, str(node), node_key=partner.node_key):
                self.control.unregister(node)  # its keys were changed in this moment
            return
        if int(partner.node_id) in known.values():
            self.control.unregister(int(partner.node_id))
        self.book.give_node(partner.name, "")


def _is_to_join(partner: Partner) -> bool:
    return partner.status == "approved" and not partner.node_id


def _is_to_go(partner: Partner) -> bool:
    return partner.status == "removed" and bool(partner.node_id)
