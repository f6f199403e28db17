"""What a partner's node asks of the coordinator's gateway besides Flower's fleet API, over TLS, signed."""

import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from fedrec.errors import ConfigError, ProtocolError, RunError
from fedrec.key_statements import partner_keys
from fedrec.signing import SigningKey, read_secret
from fedrec_client.settings import Node

_TIMEOUT_S = 30.0
_MOST_BYTES = 2 << 30


class UnreachableError(RunError):
    """The coordinator does not answer; later it may."""


def fetch_authority(address: str, authority: str) -> bytes:
    """The coordinator's CA certificate, from a connection that nothing vouches for, compared with its SHA-256.

    Raises: ConfigError: another coordinator answers there. UnreachableError.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_S) as client:
            pem = client.get(f"https://{address}/fedrec/v1/authority").raise_for_status().content
        found = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
    except httpx.HTTPError as error:
        raise _unreachable(address, error) from error
    except ValueError as error:
        raise ConfigError(f"{address}: is no coordinator", "ask for a new invitation") from error
    if found != authority:
        raise ConfigError(
            f"{address}: answers with another certificate authority than was named",
            "somebody may stand between; ask the coordinator for the fingerprint by another way",
        )
    return pem


class CoordinatorLink:
    """Raises, in every method: UnreachableError; ProtocolError: the coordinator refuses, in its words.

    Args:
        node: whose folder holds the CA certificate and the keys.
    """

    def __init__(self, node: Node) -> None:
        self._name = node.settings.name
        self._address = node.settings.coordinator.address
        self._key = node.signing_key()
        context = ssl.create_default_context(cafile=node.keys / "ca.pem")
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
    import base64

    private = serialization.load_ssh_private_key(read_secret(keys / "node.key"), None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(private.public_key().public_bytes(serialization.Encoding.PEM, form)).decode()


def _words(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"answers {response.status_code}"


def _unreachable(address: str, error: Exception) -> UnreachableError:
    """TLS failures are told apart: they are no matter of patience."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        remedy = "check address and clock; if the coordinator rotated its authority: flower-client trust --fingerprint"
        return UnreachableError(f"{address}: its certificate is not that of the coordinator", f"{remedy} SHA256")
    return UnreachableError(f"{address}: does not answer ({type(error).__name__})", "the node tries again by itself")
