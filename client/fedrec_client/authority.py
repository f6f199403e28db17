"""The coordinator's certificate authority as a partner pins it: one certificate, the one of the invitation."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from fedrec.errors import ConfigError


def pinned_authority(content: bytes, fingerprint: str, source: str) -> bytes:
    """The one certificate of a file, if it is the one that is pinned, as PEM and nothing else.

    OpenSSL trusts every certificate of a file: a second one behind the right one would let its owner pass for the
    coordinator.

    Args:
        fingerprint: SHA-256 that the invitation names, hex.
        source: where it comes from, for the error.
    Raises: ConfigError: none, more than one, or another one.
    """
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{source}: no PEM certificate", "ask the coordinator for its ca.pem") from error
    if len(found) != 1:
        raise ConfigError(
            f"{source}: {len(found)} certificates where one is pinned",
            "somebody may have added one; ask the coordinator for its ca.pem",
        )
    if found[0].fingerprint(hashes.SHA256()).hex() != fingerprint:
        raise ConfigError(
            f"{source}: another certificate authority than the invitation names",
            "somebody may stand between; ask the coordinator for the fingerprint by another way",
        )
    return found[0].public_bytes(serialization.Encoding.PEM)


def read_authority(path: Path, fingerprint: str) -> bytes:
    """As `pinned_authority`, from a file. Raises ConfigError: it cannot be read, too."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "ask the coordinator for its ca.pem") from error
    return pinned_authority(content, fingerprint, str(path))
