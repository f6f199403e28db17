"""What a partner's node asks of the coordinator's gateway besides Flower's fleet API, over TLS, signed."""

import base64
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from fedrec.errors import ProtocolError, RunError
from fedrec.key_statements import partner_keys
from fedrec.signing import SigningKey, read_secret
from fedrec_client.authority import pinned_authority
from fedrec_client.node_key import public_part
from fedrec_client.settings import Node

_TIMEOUT_S = 30.0
_MOST_PEM_BYTES = 64 << 10
_FOREIGN = (
    "is of another authority than the one that is pinned",
    "somebody may stand between, or it was rotated: ask by another way, then flower-client trust --fingerprint SHA256",
)
_NAMES = ("is for other host names", "ask the coordinator for an invitation with the address that it names")
# By OpenSSL's verify codes.
_REASONS = {
    9: ("is not valid yet", "check this machine's clock"),
    10: ("has expired", "check this machine's clock; the coordinator renews it with `flower-server certificate`"),
    **dict.fromkeys((18, 19, 20, 21), _FOREIGN),
    **dict.fromkeys((62, 64), _NAMES),
}


class UnreachableError(RunError):
    """The coordinator does not answer; later it may."""


class CertificateError(UnreachableError):
    """Somebody answers who cannot show the coordinator's certificate. Nothing was sent."""


def fetch_authority(address: str, authority: str) -> bytes:
    """The coordinator's CA certificate, from a connection that nothing vouches for, compared with its SHA-256.

    Raises: ConfigError: another coordinator answers there. UnreachableError.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://{address}/fedrec/v1/authority"
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_S) as client, client.stream("GET", url) as answer:
            content = next(answer.raise_for_status().iter_bytes(_MOST_PEM_BYTES), b"")
    except httpx.HTTPError as error:
        raise _unreachable(address, error) from error
    return pinned_authority(content, authority, address)


def meet(address: str, authority: bytes) -> None:
    """Make sure that the coordinator is the one that is meant, before keys are made or anything is sent.

    Args:
        authority: PEM, compared with the fingerprint of the invitation.
    Raises: CertificateError: somebody else answers. UnreachableError.
    """
    context = ssl.create_default_context(cadata=authority.decode())
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_S) as client:
            client.get(f"https://{address}/health").raise_for_status()
    except httpx.HTTPError as error:
        raise _unreachable(address, error) from error


class CoordinatorLink:
    """Raises, in every method: UnreachableError; CertificateError; ProtocolError: the coordinator refuses.

    Args:
        node: whose folder holds the CA certificate and the keys. Raises ConfigError: it is not the one that is pinned.
    """

    def __init__(self, node: Node) -> None:
        self._name = node.settings.name
        self._address = node.settings.coordinator.address
        self._key = node.signing_key()
        context = ssl.create_default_context(cadata=node.authorities.read().decode())
        self._client = httpx.Client(base_url=f"https://{self._address}", verify=context, timeout=_TIMEOUT_S)

    def enrol(self, secret: str, keys: Path) -> dict[str, Any]:
        """Use up an invitation for the keys of a folder; only their public halves go over."""
        public = {"node_key": node_public_key(keys), "signing_key": SigningKey.load(keys / "signing.key").public.hex()}
        return self._json("POST", "/fedrec/v1/enrol", {"name": self._name, "secret": secret, **public})

    def rotate(self, keys: Path) -> dict[str, Any]:
        """Put the keys of a folder in place of this partner's; only their public halves go over."""
        fresh, at = SigningKey.load(keys / "signing.key"), datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {"old_key": self._key.public.hex(), "signing_key": fresh.public.hex()}
        told |= {"node_key": node_public_key(keys), "time": at}
        signed = partner_keys(self._name, **told)
        signatures = {"old_signature": self._key.sign("partner-keys", signed)}
        signatures["new_signature"] = fresh.sign("partner-keys", signed)
        return self._json("POST", "/fedrec/v1/rotate", {"name": self._name, **told, **signatures})

    def keys(self) -> dict[str, Any]:
        """What vouches for the coordinator's own keys; not checked here."""
        return self._json("GET", "/fedrec/v1/keys")

    def me(self) -> dict[str, Any]:
        """How this partner stands."""
        return self._json("GET", "/fedrec/v1/me")

    def terms(self) -> dict[str, Any]:
        """What the federation asks for; the signature is not checked here."""
        return self._json("GET", "/fedrec/v1/terms")

    def catalog(self, sha256: str) -> bytes:
        """The public catalogue. Raises ProtocolError, too: another file than was named."""
        content = self._call("GET", "/fedrec/v1/catalog").content
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ProtocolError("the catalogue is not the one that was named", "try again")
        return content

    def adapter(self) -> dict[str, Any]:
        """Manifest and signed head of the newest version; not checked here."""
        return self._json("GET", "/fedrec/v1/adapter")

    def tensors(self, sha256: str) -> bytes:
        """The newest version's file. Raises ProtocolError, too: another one than was named."""
        content = self._call("GET", f"/fedrec/v1/adapter/tensors?hash={sha256}").content
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ProtocolError("the adapter is not the one that was named", "try again")
        return content

    def wish(self) -> dict[str, Any]:
        """Wish for a round. It says who and when, no more: not why, and not how much there is to learn from."""
        return self._json("POST", "/fedrec/v1/wish")

    def leave(self) -> dict[str, Any]:
        """Take no further part."""
        return self._json("POST", "/fedrec/v1/leave")

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            values = self._call(method, path, body).json()
        except ValueError as error:
            raise ProtocolError(f"{self._address}: answers no JSON") from error
        if not isinstance(values, dict):
            raise ProtocolError(f"{self._address}: answers no JSON object")
        return values

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        bare, _, query = path.partition("?")
        values = {"method": method, "path": bare, "query": query, "time": at}
        signature = self._key.sign("request", values)
        headers = {"fedrec-partner": self._name, "fedrec-time": at, "fedrec-signature": signature}
        try:
            response = self._client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise _unreachable(self._address, error) from error
        if response.status_code in (429, 502, 503, 504):
            raise UnreachableError(f"{self._address}: {_words(response)}", "the node tries again by itself")
        if response.is_error:
            raise ProtocolError(f"{self._address}: {_words(response)}", "ask the coordinator")
        return response


def node_public_key(keys: Path) -> str:
    """Of Flower's node authentication, base64 of PEM, as its headers have it."""
    return base64.b64encode(public_part(read_secret(keys / "node.key"))).decode()


def _words(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"answers {response.status_code}"


def _unreachable(address: str, error: Exception) -> UnreachableError:
    """TLS failures are told apart: they are no matter of patience."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        reason, remedy = _REASONS.get(cause.verify_code, ("is not that of the coordinator", "ask the coordinator"))
        return CertificateError(f"{address}: its certificate {reason}; nothing was sent", remedy)
    return UnreachableError(f"{address}: does not answer ({type(error).__name__})", "the node tries again by itself")
