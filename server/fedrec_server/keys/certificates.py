"""The coordinator's own certificate authority and its server certificate; partners pin the authority."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrec.errors import ConfigError
from fedrec.files import make_folders, replace_file, storage_errors
from fedrec.signing import read_secret

# Where keys of the SuperLink lie, which listens on the loopback; a company's certificate needs no name for that.
LOOPBACK = "loopback"
_LOCAL = ("localhost", "127.0.0.1")
_LOOPBACK_DAYS, _RENEWED_BEFORE = 3650, timedelta(days=365)
_CLOCKS_MAY_DIFFER = timedelta(hours=1)


def make_authority(folder: Path, name: str, days: int = 3650) -> None:
    """Write `ca.pem` and `ca.key` (0600). Raises ConfigError: one is there. StorageError."""
    if (folder / "ca.pem").exists():
        raise ConfigError(f"{folder / 'ca.pem'}: is there already", "keep it: every partner has pinned it")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} fedrec CA"[:64])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    built = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write(folder, "ca", built.sign(key, hashes.SHA256()), key)


def make_server_certificate(folder: Path, hosts: Sequence[str], days: int = 825) -> None:
    """Write `server.pem` and `server.key` (0600), signed by the folder's authority, for the hosts and this machine.

    An older one is replaced: partners pin the authority alone. Raises ConfigError: no authority there, or one whose
    key is a company's. StorageError.
    """
    if (folder / "ca.pem").exists() and not (folder / "ca.key").exists():
        raise ConfigError(
            f"{folder / 'ca.pem'}: the authority's key is not here",
            "give --ssl-certfile and --ssl-keyfile, signed by it",
        )
    authority = x509.load_pem_x509_certificate(_read(folder / "ca.pem"))
    secret = serialization.load_pem_private_key(read_secret(folder / "ca.key"), None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedrec coordinator")])
    names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys([*hosts, *_LOCAL])])
    built = (
        _builder(subject, authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(secret.public_key()), critical=False)
        .add_extension(names, critical=False)
    )
    _write(folder, "server", built.sign(secret, hashes.SHA256()), key)


def make_loopback_certificate(keys: Path) -> None:
    """Write the SuperLink's `ca.pem`, `server.pem`, `server.key`, unless they are there and good for a year.

    Nobody pins its authority: whose key is thrown away. Raises StorageError.
    """
    folder = keys / LOOPBACK
    needed = [folder / name for name in ("ca.pem", "server.key", "server.pem")]
    if all(path.exists() for path in needed) and expires_at(folder) > datetime.now(UTC) + _RENEWED_BEFORE:
        return
    with storage_errors(folder):
        for path in needed:
            path.unlink(missing_ok=True)
    make_authority(folder, LOOPBACK, _LOOPBACK_DAYS)
    make_server_certificate(folder, _LOCAL, _LOOPBACK_DAYS)
    with storage_errors(folder):
        folder.chmod(0o700)
        (folder / "ca.key").unlink()


def authority_fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate, hex: what an invitation carries. Raises ConfigError: no certificate."""
    try:
        return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise ConfigError("no PEM certificate", "give the coordinator's ca.pem") from error


def expires_at(folder: Path) -> datetime:
    """When the server certificate ends, UTC. Raises ConfigError: none there."""
    return x509.load_pem_x509_certificate(_read(folder / "server.pem")).not_valid_after_utc


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_MAY_DIFFER)
        .not_valid_after(now + timedelta(days=days))
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = serialization.Encoding.PEM
    with storage_errors(folder):
        make_folders(folder)
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        replace_file(folder / f"{stem}.key", secret)
        replace_file(folder / f"{stem}.pem", certificate.public_bytes(pem))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "run `flower-server init`") from error
