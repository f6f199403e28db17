"""A gateway with one approved partner, in memory, and before a real listener."""

import asyncio
import base64
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from fedrec.registry.registry import Registry
from fedrec.signing import SigningKey
from fedrec_server.gateway.app import Gateway
from fedrec_server.gateway.connection import ConnectionLimits
from fedrec_server.gateway.limits import GatewayLimits
from fedrec_server.gateway.partner_desk import PartnerDesk
from fedrec_server.gateway.public_server import PublicServer
from fedrec_server.keys.certificates import make_authority, make_server_certificate
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.heads import SignedHeads
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.store import Database

KEY = SigningKey(bytes(32))
NODE_SECRET = ec.derive_private_key(7, ec.SECP384R1())
NODE_KEY = base64.b64encode(public_key_to_bytes(NODE_SECRET.public_key())).decode()
FEDERATION = SimpleNamespace(
    terms=SimpleNamespace(name="films", to_dict=lambda: {"name": "films"}), catalog=b"PAR1", catalog_sha256="c"
)


class Upstream:
    """In place of Flower's SuperLink, at the end of the wire: what arrives there, and what it answers."""

    def __init__(self) -> None:
        self.calls: list[httpx.Request] = []
        self.work_after = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        has_work = request.url.path.endswith("pull-messages") and len(self.calls) > self.work_after
        answer = PullMessagesResponse(messages_list=[MessageProto()] if has_work else [])
        return httpx.Response(200, content=answer.SerializeToString(), headers={"x-inner": "secret"})


class World:
    """A gateway with one approved partner, and a client of it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.key, self.node_key = KEY, NODE_KEY
        self.upstream = Upstream()
        self.book = PartnerBook(Database.open(f"sqlite:///{folder / 'state.sqlite'}"))
        secret = self.book.invite("shop", valid_for=timedelta(hours=1), is_approved=True)
        self.book.enrol("shop", secret, node_key=NODE_KEY, signing_key=KEY.public.hex())
        self.book.set_status("shop", "approved", who="test")
        desk = PartnerDesk(self.book, cast(Federation, FEDERATION), "sig", SignedHeads(Registry(folder / "registry")))
        inner = httpx.AsyncClient(transport=httpx.MockTransport(self.upstream), base_url="https://superlink")
        self.gateway = Gateway(inner, desk, b"PEM", GatewayLimits(**{"strangers_per_s": 1000.0, **limits}))
        self.app = self.gateway.app()

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("1.2.3.4", 5))
            async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
                return await client.request(method, path, **more)

        return asyncio.run(run())

    def signed(self, path: str, **changed: Any) -> httpx.Response:
        more = {name: changed.pop(name) for name in ("key", "at") if name in changed}
        return self.call("GET", path, headers={**self.headers("GET", path, **more), **changed})

    def headers(
        self, method: str, path: str, *, key: SigningKey = KEY, at: datetime | None = None, name: str = "shop"
    ) -> dict[str, str]:
        """As a partner's node makes them for a call of ours."""
        moment = (at or datetime.now(UTC)).isoformat()
        bare, _, query = path.partition("?")
        values = {"method": method, "path": bare, "query": query, "time": moment}
        return {"fedrec-partner": name, "fedrec-time": moment, "fedrec-signature": key.sign("request", values)}

    def fleet(self, name: str, body: bytes = b"", key: str = NODE_KEY) -> httpx.Response:
        return self.call("POST", f"/v1/fleet/{name}", content=body, headers=self.node_headers(key))

    def node_headers(
        self,
        key: str = NODE_KEY,
        *,
        secret: ec.EllipticCurvePrivateKey = NODE_SECRET,
        at: datetime | None = None,
    ) -> dict[str, str]:
        """As Flower's node makes them."""
        moment = (at or datetime.now(UTC)).isoformat()
        signature = base64.b64encode(sign_message(secret, moment.encode())).decode()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: key,
            TIMESTAMP_HEADER: moment,
            FLEET_HTTP_SIGNATURE_HEADER: signature,
        }


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Makes one with limits of its own."""
    return lambda **limits: World(tmp_path, **limits)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(held_s=0.2, look_s=0.05)


class Listener:
    """A gateway's real TLS listener in a thread, on a free port, with times shrunk."""

    def __init__(self, world: World, keys: Path, **limits: Any) -> None:
        short = {"handshake_s": 0.4, "head_s": 0.4, "idle_s": 0.4, "linger_s": 0.2, "flush_s": 0.4}
        self.world, self.keys = world, keys
        made = ConnectionLimits(**{**short, **limits})
        self.server = PublicServer(world.app, keys / "server.pem", keys / "server.key", "127.0.0.1", 0, made)
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        (self.port,) = self.server.listening

    def connect(self) -> socket.socket:
        """Without TLS."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=5.0)

    def tls(self) -> ssl.SSLSocket:
        """As a partner's node connects."""
        context = ssl.create_default_context(cafile=self.keys / "ca.pem")
        return context.wrap_socket(self.connect(), server_hostname="localhost")

    def is_well(self) -> bool:
        """Whether it still answers others."""
        with self.tls() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return all_of(connection).startswith(b"HTTP/1.1 200 ")

    def inside(self) -> int:
        """Connections that it holds."""
        return self.server.guests.inside.total()

    def stop(self) -> None:
        """In order."""
        self.server.should_exit = True
        self._thread.join(10.0)
        assert not self._thread.is_alive()


def all_of(connection: socket.socket) -> bytes:
    """Everything until the other side closes; a reset counts as that."""
    parts = []
    with suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def issued(
    folder: Path,
    authority: Path | None,
    hosts: list[str],
    *,
    days: tuple[float, float] = (-1, 1),
    is_authority: bool = False,
    name: str = "server",
) -> Path:
    """A certificate and its key in a folder, valid from and to so many days from now.

    By the authority of another folder, or by itself.
    """
    key, now, stem = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), "ca" if is_authority else "server"
    subject = issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    secret: Any = key
    if authority is not None:
        issuer = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes()).subject
        secret = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    is_address = [host[0].isdigit() for host in hosts]
    names = [
        x509.IPAddress(ipaddress.ip_address(host)) if number else x509.DNSName(host)
        for host, number in zip(hosts, is_address, strict=True)
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(secret.public_key()), critical=False)
    )
    if is_authority:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = made.add_extension(usage, critical=True)
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    folder.mkdir(parents=True, exist_ok=True)
    pem, form, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{stem}.key").write_bytes(key.private_bytes(pem, form, none))
    (folder / f"{stem}.key").chmod(0o600)
    (folder / f"{stem}.pem").write_bytes(made.sign(secret, hashes.SHA256()).public_bytes(pem))
    return folder


@pytest.fixture(scope="session")
def issue() -> Callable[..., Path]:
    """Makes certificates that are wrong in a way."""
    return issued


@pytest.fixture(scope="session")
def true(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The coordinator's authority, and its certificate for localhost."""
    folder = tmp_path_factory.mktemp("true")
    make_authority(folder, "films")
    make_server_certificate(folder, ["localhost"])
    return folder


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody else's, under the same names."""
    folder = tmp_path_factory.mktemp("foreign")
    make_authority(folder, "films")
    make_server_certificate(folder, ["localhost"])
    return folder


@pytest.fixture
def listen(true: Path) -> Iterator[Callable[..., Listener]]:
    """Puts a world behind a listener, which is stopped at the end."""
    made: list[Listener] = []

    def start(world: World, *, keys: Path = true, **limits: Any) -> Listener:
        made.append(Listener(world, keys, **limits))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def make_listener(world: World, listen: Callable[..., Listener]) -> Callable[..., Listener]:
    """Makes listeners with limits of their own."""
    return lambda **limits: listen(world, **limits)


@pytest.fixture
def listener(make_listener: Callable[..., Listener]) -> Listener:
    return make_listener()
