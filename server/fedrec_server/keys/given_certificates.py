"""A company's own authority and server certificate, in place of those that `flower-server init` makes: checked first.

Partners pin the authority that they are invited with, so a mistake here would show at every one of them.
"""

import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from fedrec.errors import ConfigError
from fedrec.files import replace_file, storage_errors

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class GivenCertificate:
    """What was given, as PEM.

    Attributes:
        authority: one certificate, which partners pin.
        chain: the server's certificate first, then what lies between it and the authority.
        key: the server's, unencrypted. Secret.
    """

    authority: bytes
    chain: bytes
    key: bytes = field(repr=False)

    def write(self, folder: Path) -> None:
        """As `ca.pem`, `server.pem`, `server.key` (0600). Raises StorageError."""
        with storage_errors(folder):
            replace_file(folder / "server.key", self.key)
            replace_file(folder / "server.pem", self.chain)
            replace_file(folder / "ca.pem", self.authority)


def read_given(authority: Path, certificate: Path, key: Path, hosts: Sequence[str]) -> GivenCertificate:
    """Read and check them.

    Args:
        hosts: names and addresses under which partners reach the gateway.
    Raises: ConfigError: with everything that is wrong.
    """
    roots, chain = _certificates(authority), _certificates(certificate)
    secret = _key(key)
    problems = [found for found in (roots, chain, secret) if isinstance(found, str)]
    if not isinstance(roots, str) and len(roots) != 1:
        problems.append(f"{authority}: {len(roots)} certificates; partners pin one")
    if not isinstance(roots, str):
        problems += [f"{authority}: {words}" for words in _authority_problems(roots[0])]
    if not isinstance(chain, str):
        problems += [f"{certificate}: {words}" for words in _server_problems(chain[0], hosts)]
        if not isinstance(roots, str):
            problems += [f"{certificate}: {words}" for words in _chain_problems([*chain, roots[0]])]
        if not isinstance(secret, str) and _public(secret.public_key()) != _public(chain[0].public_key()):
            problems.append(f"{key}: is not the key of the certificate")
    if not problems:
        problems = [f"{certificate}: {words}" for words in _handshake_problems(authority, certificate, key, hosts)]
    if problems or isinstance(roots, str) or isinstance(chain, str) or isinstance(secret, str):
        raise ConfigError.of_all(problems, "ask whoever runs the authority for a certificate that holds all of this")
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    joined = b"".join(one.public_bytes(_PEM) for one in chain)
    return GivenCertificate(roots[0].public_bytes(_PEM), joined, secret.private_bytes(_PEM, form, none))


def _certificates(path: Path) -> list[x509.Certificate] | str:
    """Those of a file, or what is wrong with it."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    except ValueError:
        return f"{path}: no PEM certificate"


def _key(path: Path) -> serialization.ssh.SSHPrivateKeyTypes | str:
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    except TypeError:
        return f"{path}: is encrypted; the gateway starts without a password"
    except (ValueError, UnsupportedAlgorithm):
        return f"{path}: no PEM private key"
    return found  # type: ignore[return-value]


def _public(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(_PEM, form)  # type: ignore[attr-defined,no-any-return]


def _authority_problems(root: x509.Certificate) -> Iterator[str]:
    try:
        is_authority = root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        yield "is not a certificate authority's"
    if root.issuer != root.subject:
        yield "is an intermediate; give the root, and the intermediates behind the server's certificate"
    yield from _time_problems(root)


def _server_problems(leaf: x509.Certificate, hosts: Sequence[str]) -> Iterator[str]:
    yield from _time_problems(leaf)
    try:
        names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (x509.ExtensionNotFound, ValueError):
        names = x509.SubjectAlternativeName([])
    assert isinstance(names, x509.SubjectAlternativeName)
    for host in hosts:
        if not _is_named(host, names):
            yield f"is not for {host}"


def _is_named(host: str, names: x509.SubjectAlternativeName) -> bool:
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
        return host.lower() in known or f"*.{host.lower().partition('.')[2]}" in known


def _time_problems(certificate: x509.Certificate) -> Iterator[str]:
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        yield f"has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        yield f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"


def _chain_problems(chain: list[x509.Certificate]) -> Iterator[str]:
    for issued, issuer in pairwise(chain):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            yield f"{issued.subject.rfc4514_string()} was not signed by {issuer.subject.rfc4514_string()}"
    for between in chain[1:-1]:
        yield from (f"{between.subject.rfc4514_string()} {words}" for words in _time_problems(between))


def _handshake_problems(authority: Path, certificate: Path, key: Path, hosts: Sequence[str]) -> Iterator[str]:
    """What OpenSSL says, which partners' nodes ask in the end."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # as partners have it from Python 3.13 on
    try:
        server.load_cert_chain(certificate, key)
        for host in hosts:
            _shake_hands(server, client, host)
    except ssl.SSLError as error:
        yield f"does not hold in a TLS connection: {getattr(error, 'verify_message', '') or error.reason}"


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """A handshake in memory. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=host)
    there = server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
