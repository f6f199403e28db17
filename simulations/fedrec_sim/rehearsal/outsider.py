"""What somebody with the CA file and the network tries, and must not get."""

import base64
import ssl
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import Message

from fedrec.signing import SigningKey
from fedrec_server.state.partner_book import Partner, PartnerBook
from fedrec_sim.rehearsal.stage import Stage

Attempt = Callable[["Outsider"], httpx.Response]


class Outsider:
    """Has the CA file, the network, and all that is public of a partner."""

    def __init__(self, stage: Stage) -> None:
        coordinator = stage.coordinator
        context = ssl.create_default_context(cafile=coordinator.keys / "ca.pem")
        address = f"https://localhost:{coordinator.settings.gateway.port}"
        self.client = httpx.Client(base_url=address, verify=context, timeout=30.0)
        self.partner: Partner = PartnerBook(coordinator.database).partners("approved")[0]
        self.node_key = ec.generate_private_key(ec.SECP384R1())
        self.signing_key = SigningKey(bytes(range(32)))

    @property
    def public(self) -> bytes:
        """The outsider's own node key."""
        return public_key_to_bytes(self.node_key.public_key())

    def flower(self, path: str, message: Message, key: bytes | None = None) -> httpx.Response:
        """A call of Flower's, signed with the outsider's key, under its own or another public key."""
        at = datetime.now(UTC).isoformat()
        signature = sign_message(self.node_key, at.encode("ascii"))
        headers = {
            "content-type": PROTOBUF_MEDIA_TYPE,
            "accept": PROTOBUF_MEDIA_TYPE,
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(key or self.public).decode(),
            TIMESTAMP_HEADER: at,
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }
        return self.client.post(path, content=message.SerializeToString(), headers=headers)

    def ours(self, path: str, *, name: str | None = None) -> httpx.Response:
        """A call of ours: unsigned, or signed with the outsider's key under a partner's name."""
        if name is None:
            return self.client.get(path)
        at = datetime.now(UTC).isoformat()
        bare, _, query = path.partition("?")
        values = {"method": "GET", "path": bare, "query": query, "time": at}
        signature = self.signing_key.sign("request", values)
        return self.client.get(path, headers={"fedrec-partner": name, "fedrec-time": at, "fedrec-signature": signature})

    def enrol(self) -> httpx.Response:
        """With a guessed secret."""
        keys = {"node_key": base64.b64encode(self.public).decode(), "signing_key": self.signing_key.public.hex()}
        return self.client.post("/fedrec/v1/enrol", json={"name": "mallory", "secret": "x" * 32, **keys})


def _node(partner: Partner) -> Node:
    return Node(node_id=int(partner.node_id))


ATTEMPTS: dict[str, Attempt] = {
    "enrol": lambda o: o.enrol(),
    "register a node": lambda o: o.flower("/v1/fleet/register-node", RegisterNodeFleetRequest(public_key=o.public)),
    "activate an own node": lambda o: o.flower("/v1/fleet/activate-node", ActivateNodeRequest(public_key=o.public)),
    "activate a partner's node": lambda o: o.flower(
        "/v1/fleet/activate-node",
        ActivateNodeRequest(public_key=base64.b64decode(o.partner.node_key)),
        base64.b64decode(o.partner.node_key),
    ),
    "see a plan": lambda o: o.flower("/v1/fleet/pull-messages", PullMessagesRequest(node=_node(o.partner))),
    "see a plan under a partner's key": lambda o: o.flower(
        "/v1/fleet/pull-messages", PullMessagesRequest(node=_node(o.partner)), base64.b64decode(o.partner.node_key)
    ),
    "start a run": lambda o: o.flower("/v1/control/start-run", StartRunRequest()),
    "start a run by a detour": lambda o: o.flower("/v1/fleet/../control/start-run", StartRunRequest()),
    "take a task": lambda o: o.flower("/v1/runtime/acquire-task", AcquireTaskRequest()),
    "read an adapter": lambda o: o.ours("/fedrec/v1/adapter"),
    "read an adapter under a partner's name": lambda o: o.ours("/fedrec/v1/adapter", name=o.partner.name),
    "read tensors": lambda o: o.ours("/fedrec/v1/adapter/tensors?hash=" + "0" * 64, name=o.partner.name),
    "read the terms": lambda o: o.ours("/fedrec/v1/terms", name=o.partner.name),
    "read the catalogue": lambda o: o.ours("/fedrec/v1/catalog"),
    "ring the bell": lambda o: o.client.post("/internal/ring"),
    "read Flower's documentation": lambda o: o.client.get("/docs"),
}


def outsider_gets(stage: Stage) -> dict[str, int]:
    """Status of every attempt; all must lie in 400..499."""
    outsider = Outsider(stage)
    try:
        return {name: attempt(outsider).status_code for name, attempt in ATTEMPTS.items()}
    finally:
        outsider.client.close()
