"""The newest adapter version, signed: what partners check before they load one."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.files import json_bytes, read_file, read_json, replace_file, sha256, storage_errors
from fedrec.registry.registry import Registry, version_name
from fedrec.signing import SigningKey

FORMAT = 1
_HEAD, _MANIFEST, _ADAPTER = "signed-head.json", "manifest.json", "adapter.safetensors"


@dataclass(frozen=True)
class SignedHead:
    """Which version counts. Public to partners.

    Attributes:
        federation: its name.
        generation: goes up with each rollback; a lower one is refused, as is a lower round of the same one.
        round: of the version.
        manifest_sha256: of its manifest, which holds the hashes of everything else.
        signature: the coordinator's, over the others.
    """

    federation: str
    generation: int
    round: int
    manifest_sha256: str
    signature: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class SignedHeads:
    """The pointer beside a registry. One process writes; others may read at any time.

    Args:
        registry: whose HEAD is meant.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._path = registry.folder / _HEAD

    def sign(self, key: SigningKey, federation: str, generation: int) -> SignedHead:
        """Sign the registry's HEAD. Raises RunError: nothing is committed. StorageError."""
        number = self._registry.head_round()
        digest = sha256(read_file(self._folder(number) / _MANIFEST))
        values = {"federation": federation, "generation": generation, "round": number, "manifest_sha256": digest}
        head = SignedHead(federation, generation, number, digest, key.sign("adapter-version", values))
        with storage_errors(self._registry.folder):
            replace_file(self._path, json_bytes({"format": FORMAT, **head.to_dict()}))
        return head

    def newest(self) -> SignedHead | None:
        """None before the first. Raises RunError: damaged."""
        return self.read() if self._path.exists() else None

    def read(self) -> SignedHead:
        """Raises RunError: none is signed yet, or damaged."""
        if not self._path.exists():
            raise RunError("no adapter is committed yet", "wait for the first round")
        values, _ = read_json(self._path, FORMAT)
        return SignedHead(**{name: value for name, value in values.items() if name != "format"})

    def manifest(self, head: SignedHead) -> bytes:
        """The bytes that the head names. Raises RunError: gone."""
        return read_file(self._folder(head.round) / _MANIFEST)

    def tensors(self, head: SignedHead) -> bytes:
        """The adapter's file. Raises RunError: gone."""
        return read_file(self._folder(head.round) / _ADAPTER)

    def _folder(self, number: int) -> Path:
        return self._registry.folder / "versions" / version_name(number)
