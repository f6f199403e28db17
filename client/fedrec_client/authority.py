"""The coordinator's certificate authority as a partner pins it: that of the invitation, or what was accepted since."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from fedrec.errors import ConfigError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors

FORMAT = 1


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


class Authorities:
    """What this node trusts: what `client.toml` pins, until the coordinator's signing key or a person named others.

    Args:
        accepted: file of those, which alone counts once it is there.
        bundle: `ca.pem`, which Flower's node reads; made from the other.
        pinned: SHA-256 of `client.toml`.
    """

    def __init__(self, accepted: Path, bundle: Path, pinned: str) -> None:
        self._accepted, self._bundle, self._pinned = accepted, bundle, pinned

    def read(self) -> bytes:
        """PEM. Raises ConfigError: the bundle is not the pinned certificate. RunError: damaged."""
        if (accepted := self._held()) is not None:
            return "".join(accepted["certificates"]).encode("ascii")
        return read_authority(self._bundle, self._pinned)

    def sequence(self) -> int:
        """Number of the list that was accepted last; 0 before the first. Raises RunError: damaged."""
        return 0 if (accepted := self._held()) is None else int(accepted["sequence"])

    def accept(self, certificates: Sequence[str], sequence: int) -> None:
        """Trust exactly these from now on. Raises StorageError: those before are trusted still."""
        told = {"format": FORMAT, "sequence": sequence, "certificates": list(certificates)}
        with storage_errors(self._accepted.parent):
            replace_file(self._accepted, json_bytes(told))
        self.settle()

    def settle(self) -> None:
        """Bring `ca.pem` in line, which a crash may have kept from it. Raises as `read`, and StorageError."""
        wanted = self.read()
        if not self._bundle.is_file() or self._bundle.read_bytes() != wanted:
            with storage_errors(self._bundle.parent):
                replace_file(self._bundle, wanted)

    def _held(self) -> dict[str, Any] | None:
        return read_json(self._accepted, FORMAT)[0] if self._accepted.is_file() else None


def read_authority(path: Path, fingerprint: str) -> bytes:
    """As `pinned_authority`, from a file. Raises ConfigError: it cannot be read, too."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "ask the coordinator for its ca.pem") from error
    return pinned_authority(content, fingerprint, str(path))
