"""The coordinator's signing key as this node knows it: that of `client.toml`, and whatever it vouches for since."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fedrec.errors import PrivacyError, ProtocolError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors
from fedrec.key_statements import KeyStatement, chain_from, keys_of, read_statements
from fedrec.signing import fingerprint, verify
from fedrec_client.coordinator_link import CoordinatorLink
from fedrec_client.settings import Node

FORMAT = 1
_T = TypeVar("_T")
_BY_ANOTHER_WAY = "compare fingerprints with the coordinator by another way before anything else"


class CoordinatorKeys:
    """Follows a chain of statements, forwards only: a key that was replaced is refused from then on.

    Threads and processes of one node may use it side by side; what one accepted, all others read at once.
    """

    def __init__(self, node: Node) -> None:
        self._pinned = bytes.fromhex(node.settings.coordinator.key)
        self._accepts = node.settings.policy.accept_new_keys
        self._authorities = node.authorities
        self._chain_file = node.state / "coordinator-keys.json"

    def chain(self) -> tuple[KeyStatement, ...]:
        """Statements accepted since the pinned key. Raises RunError, ProtocolError: the file is damaged or was changed.

        A key that its owner pinned anew in `client.toml`, and that the file does not know, makes the file void.
        """
        if not self._chain_file.is_file():
            return ()
        held = read_statements(read_json(self._chain_file, FORMAT)[0].get("statements"))
        return chain_from(self._pinned, held) if self._pinned in keys_of(held) else ()

    def current(self) -> bytes:
        """The one that counts. Raises as `chain`."""
        return self.known()[-1]

    def known(self) -> list[bytes]:
        """All that counted, oldest first: for what was agreed to before. Raises as `chain`."""
        return [self._pinned, *keys_of(self.chain())[1:]]

    def heard(self, check: Callable[[], _T], link: CoordinatorLink, *, is_agreed: bool = False) -> _T:
        """What `check` returns; if it refuses, it may do so once more after the coordinator was asked for a newer key.

        Args:
            is_agreed: a person accepts the newer key, whatever the policy says.
        Raises: ProtocolError: as `check`. Otherwise as `follow`.
        """
        try:
            return check()
        except ProtocolError:
            if not self.follow(link, is_agreed=is_agreed):
                raise
            return check()

    def follow(self, link: CoordinatorLink, *, is_agreed: bool = False) -> bool:
        """Ask the coordinator what vouches for its keys, and keep what is newer and sound.

        Returns: whether anything is newer.
        Raises:
            ProtocolError: the chain is not sound, is older than what is held, or leads elsewhere.
            PrivacyError: there is a newer key, and the policy wants a person to accept it.
            UnreachableError. StorageError: what was held is held still.
        """
        told = link.keys()
        offered = chain_from(self._pinned, read_statements(told.get("statements")))
        with self._alone(), storage_errors(self._chain_file.parent):
            has_key = self._take_chain(told, offered, is_agreed)
            return self._take_authorities(told.get("authorities")) or has_key

    def _take_chain(self, told: dict[str, Any], offered: tuple[KeyStatement, ...], is_agreed: bool) -> bool:
        held = self.chain()
        if offered[: len(held)] != held:
            older = len(offered) < len(held) and held[: len(offered)] == offered
            what = "an older chain of keys" if older else "another chain of keys"
            raise ProtocolError(f"the coordinator offers {what} than was accepted here", _BY_ANOTHER_WAY)
        if len(offered) == len(held):
            return False
        if not (self._accepts or is_agreed):
            new = fingerprint(keys_of(offered)[-1])
            words = f"the coordinator has a new signing key, {new}, and policy.accept_new_keys is false"
            raise PrivacyError(words, "compare the fingerprint with the coordinator, then flower-client agree")
        replace_file(self._chain_file, json_bytes({"format": FORMAT, "statements": told["statements"]}))
        return True

    def _take_authorities(self, told: object) -> bool:
        """Trust exactly the certificates that the current key names, if the list is newer. Raises ProtocolError."""
        if told is None:
            return False
        sequence, certificates = self._read_authorities(told)
        held = self._authorities.sequence()
        if sequence < held:
            raise ProtocolError("the coordinator offers older authorities than were accepted here", _BY_ANOTHER_WAY)
        if sequence == held:
            self._authorities.settle()
            return False
        self._authorities.accept(certificates, sequence)
        return True

    def _read_authorities(self, told: object) -> tuple[int, list[str]]:
        refusal = ProtocolError("the coordinator's authorities cannot be read", _BY_ANOTHER_WAY)
        if not isinstance(told, dict) or type(told.get("sequence")) is not int:
            raise refusal
        sequence, certificates = int(told["sequence"]), told.get("certificates")
        if not isinstance(certificates, list) or not 1 <= len(certificates) <= 4:
            raise refusal
        signed = {"sequence": sequence, "certificates": certificates}
        verify(self.current(), "authorities", signed, str(told.get("signature")))
        try:
            texts = [str(one) for one in certificates]
            authority_fingerprints("".join(texts).encode("ascii"))
        except ValueError as error:
            raise refusal from error
        return sequence, texts

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """What is held is looked at and replaced by one process at a time, so that it never goes back."""
        with storage_errors(self._chain_file.parent), self._chain_file.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def authority_fingerprints(bundle: bytes) -> list[str]:
    """SHA-256 of every certificate of a PEM bundle, hex. Raises ValueError: no such bundle."""
    return [one.fingerprint(hashes.SHA256()).hex() for one in x509.load_pem_x509_certificates(bundle)]


def describe_key(keys: CoordinatorKeys) -> dict[str, Any]:
    """For the partner's own people."""
    chain = keys.chain()
    latest = {name: asdict(chain[-1])[name] for name in ("sequence", "date")} if chain else {"sequence": 0, "date": ""}
    return {"fingerprint": fingerprint(keys.current()), **latest}
