"""A coordinator and a partner whose keys change, with a wire between them that may lose what travels."""

import asyncio
import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import sign_message

from fedrec.invitation import ENROL, REPLACE_KEYS, Invitation
from fedrec_client import own_keys
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.node_key import public_part
from fedrec_client.settings import Node, make_node, mark_enrolled
from fedrec_server.gateway.app import Gateway
from fedrec_server.gateway.limits import GatewayLimits
from fedrec_server.gateway.partner_desk import PartnerDesk
from fedrec_server.keys.certificates import authority_fingerprint
from fedrec_server.keys.key_rotation import key_papers
from fedrec_server.rounds.federation import Federation
from fedrec_server.settings import Coordinator, make_coordinator
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import PartnerBook

PORTS = {"GATEWAY_PORT": 8443, "SUPERLINK_PORT": 9191, "ADMIN_PORT": 8444}
FEDERATION = SimpleNamespace(
    terms=SimpleNamespace(name="films", to_dict=lambda: {"name": "films"}), catalog=b"PAR1", catalog_sha256="c"
)
HOUR = timedelta(hours=1)


class Wire(httpx.BaseTransport):
    """Between a node and the gateway, both in this process; it may lose a question, or an answer."""

    def __init__(self, app: Any) -> None:
        self.app, self.loses, self.bodies = app, "", list[bytes]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        self.bodies.append(content)
        if self.loses == "question":
            raise httpx.ConnectError("lost")

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("1.2.3.4", 5))
            async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
                return await client.request(request.method, request.url, content=content, headers=request.headers)

        answer = asyncio.run(run())
        if self.loses == "answer":
            raise httpx.ReadError("lost")
        return httpx.Response(answer.status_code, content=answer.content)


class World:
    """A coordinator's folder and its gateway, and one partner's folder with a ledger that must not change."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = make_coordinator(folder / "coordinator", name="films", hosts=("localhost",), ports=PORTS)
        self.coordinator = Coordinator(self.coordinator.folder)
        self.book, self.keys = PartnerBook(self.coordinator.database), KeyBook(self.coordinator.database)
        papers = partial(key_papers, self.coordinator)
        desk = PartnerDesk(self.book, cast(Federation, FEDERATION), "sig", self.coordinator.heads, papers)
        inner = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200)), base_url="https://flower"
        )
        gateway = Gateway(inner, desk, b"PEM", GatewayLimits(strangers_per_s=1000.0))
        self.wire = Wire(gateway.app())
        invitation = self.invitation()
        self.node = make_node(folder / "node", invitation, (self.coordinator.keys / "ca.pem").read_bytes(), 9094)
        self.link().enrol(invitation.secret, self.node.keys)
        mark_enrolled(self.node)
        self.book.set_status("shop", "approved", who="test")
        (self.node.state / "ledger.sqlite").write_bytes(b"what was paid")

    def invitation(self, *, kind: str = ENROL, name: str = "shop") -> Invitation:
        secret = self.book.invite(name, valid_for=HOUR, is_approved=False, replaces_keys=kind == REPLACE_KEYS)
        authority = authority_fingerprint((self.coordinator.keys / "ca.pem").read_bytes())
        key = self.coordinator.signing_key().public.hex()
        return Invitation("localhost:8443", name, secret, authority, key, kind)

    def link(self, node: Node | None = None) -> CoordinatorLink:
        made = CoordinatorLink(node or self.node)
        made._client.close()
        made._client = httpx.Client(transport=self.wire, base_url="https://gateway")
        return made

    def rotate(self) -> dict[str, Any]:
        return own_keys.rotate(self.node, self.link())

    def fleet(self, node_key: bytes) -> int:
        """Status of a call that a node signs; 401 is how strangers are met."""
        key, moment = serialization.load_ssh_private_key(node_key, None), datetime.now(UTC).isoformat()
        signature = sign_message(cast(Any, key), moment.encode())
        headers = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(public_part(node_key)).decode(),
            TIMESTAMP_HEADER: moment,
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }
        client = httpx.Client(transport=self.wire, base_url="https://gateway")
        return client.post("/v1/fleet/get-run", headers=headers).status_code

    def state(self) -> dict[str, bytes]:
        """What no change of keys may touch."""
        return {name: (self.node.folder / name).read_bytes() for name in ("state/ledger.sqlite", "keys/noise.key")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.coordinator.database.close()
