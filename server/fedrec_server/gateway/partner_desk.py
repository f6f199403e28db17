"""What the gateway tells partners and takes from them. It holds no signing key: what it hands out was signed before."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.errors import ProtocolError
from fedrec.files import sha256
from fedrec_server.gateway.proofs import read_node_key
from fedrec_server.gateway.rotations import read_rotation, unsigned
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.heads import SignedHeads
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import Partner, PartnerBook, Status

# How long a partner's status is taken for granted: a suspension takes so long to bite.
_REMEMBERED_S = 1.0
_SEEN_EVERY_S = 5.0
_MAY_CALL: tuple[Status, ...] = ("pending", "approved", "suspended")


class Enrolment(BaseModel):
    """What a new partner sends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    secret: Annotated[str, Field(min_length=16, max_length=100)]
    node_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]{100,400}$")]
    signing_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass
class PartnerDesk:
    """See the module.

    Attributes:
        federation: what is trained.
        terms_signature: the coordinator's, over the terms.
        papers: what vouches for the coordinator's own keys, as `GET /fedrec/v1/keys` tells it.
    """

    book: PartnerBook
    federation: Federation
    terms_signature: str
    heads: SignedHeads
    papers: Callable[[], dict[str, Any]] = field(default=lambda: {"statements": []}, repr=False)
    _known: tuple[float, dict[str, Partner], dict[str, Partner]] = field(default=(0.0, {}, {}), repr=False)
    _seen: dict[str, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._keys = KeyBook(self.book.database)

    def known(self, name: str) -> Partner | None:
        """The partner of a name."""
        return self._look()[1].get(name)

    def holder(self, node_key: str) -> Partner | None:
        """The partner of a node's key, as Flower's header has it."""
        return self._look()[2].get(node_key)

    def see(self, name: str) -> None:
        """Note that a partner was heard of, every few seconds at most."""
        if time.monotonic() - self._seen.get(name, -_SEEN_EVERY_S) >= _SEEN_EVERY_S:
            self._seen[name] = time.monotonic()
            self.book.see(name)

    def enrol(self, body: bytes) -> dict[str, Any]:
        """Use up an invitation. Raises ProtocolError: not valid; says no more than that."""
        try:
            asked = Enrolment.model_validate_json(body)
        except ValidationError as error:
            raise ProtocolError("not an enrolment", "use flower-client init") from error
        if read_node_key(asked.node_key) is None:  # Flower refuses it; better before an invitation is spent on it
            raise ProtocolError("not an enrolment: node_key is no P-384 public key", "use flower-client init")
        keys = {"node_key": asked.node_key, "signing_key": asked.signing_key}
        partner = self.book.enrol(asked.name, asked.secret, **keys)
        # An answer that was lost is given again, but it must not undo a suspension since.
        if partner.status == "pending" and self.book.is_preapproved(asked.name):
            self.book.set_status(asked.name, "approved", who="invitation")
        self._forget()
        return self.tell(self.book.partner(asked.name))

    def rotate(self, body: bytes) -> dict[str, Any]:
        """Put a partner's new keys in place of its old ones. Raises ProtocolError: not signed by both, or refused."""
        asked = read_rotation(body)
        if read_node_key(asked.node_key) is None:
            raise ProtocolError("not a change of keys: node_key is no P-384 public key")
        partner = next((one for one in self.book.partners(*_MAY_CALL) if one.name == asked.name), None)
        if partner is None:
            raise unsigned()
        asked.check(partner.signing_key)
        if partner.status != "approved" and partner.signing_key != asked.signing_key:
            raise ProtocolError(f"this partner is {partner.status}; its keys stay until the coordinator approves it")
        new = {"node_key": asked.node_key, "signing_key": asked.signing_key}
        self._keys.rotate(asked.name, old_key=asked.old_key, **new)
        self._forget()
        return self.tell(self.book.partner(asked.name))

    def tell(self, partner: Partner) -> dict[str, Any]:
        """How a partner stands."""
        told = {"partner": partner.name, "status": partner.status, "node_id": partner.node_id}
        return {**told, "federation": self.federation.terms.name, "reason": partner.reason}

    def leave(self, partner: Partner) -> dict[str, Any]:
        """A partner takes no further part, for good."""
        gone = self.book.set_status(partner.name, "removed", who=partner.name)
        self._forget()
        return self.tell(gone)

    def wish(self, partner: Partner) -> dict[str, Any]:
        """A partner would like a round; the driver heeds it where `rounds.on_wish` says so."""
        self.book.wish(partner.name)
        return self.tell(partner)

    def terms(self) -> dict[str, Any]:
        """Terms, signed, and the hash of the catalogue's file."""
        federation = self.federation
        signed = {"terms": federation.terms.to_dict(), "signature": self.terms_signature}
        return {**signed, "catalog_sha256": federation.catalog_sha256}

    def adapter(self) -> dict[str, Any]:
        """The newest version's manifest, and what was signed of it; neither before the first."""
        head = self.heads.newest()
        if head is None:
            return {"head": None, "manifest": None}
        return {"head": head.to_dict(), "manifest": json.loads(self.heads.manifest(head))}

    def tensors(self, adapter_hash: str) -> bytes:
        """The newest version's file. Raises ProtocolError: another one was asked for."""
        head = self.heads.read()
        content = self.heads.tensors(head)
        if sha256(content) != adapter_hash:
            raise ProtocolError("not the newest adapter", "ask for its manifest again")
        return content

    def _forget(self) -> None:
        with self._lock:
            self._known = (0.0, {}, {})

    def _look(self) -> tuple[float, dict[str, Partner], dict[str, Partner]]:
        with self._lock:
            if time.monotonic() - self._known[0] > _REMEMBERED_S:
                all_ = self.book.partners(*_MAY_CALL)
                names, keys = {p.name: p for p in all_}, {p.node_key: p for p in all_}
                self._known = (time.monotonic(), names, keys)
            return self._known
