"""The adapter that this partner serves from: fetched, verified, and kept whole on its disk, whatever happens."""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import ModelError, ProtocolError, RunError
from fedrec.files import json_bytes, place_folder, read_file, read_json, storage_errors
from fedrec.model.adapter import AdapterSpec, AdapterState
from fedrec.signing import verify
from fedrec_client.coordinator_link import CoordinatorLink

FORMAT = 1
_HELD, _TENSORS = "held.json", "adapter.safetensors"


@dataclass(frozen=True)
class HeldAdapter:
    """What is held. Public to partners.

    Attributes:
        generation, round: of the version; a pair never goes down.
        adapter_hash: of the tensors.
        statement: what is promised about privacy.
    """

    generation: int
    round: int
    adapter_hash: str
    statement: dict[str, Any]


class Adapters:
    """The newest verified version in a folder. One process writes; others may read at any time.

    Args:
        folder: made at the first version.
        coordinator: public key.
        federation: name.
        spec: what a version must fit.
    """

    def __init__(self, folder: Path, coordinator: bytes, federation: str, spec: AdapterSpec) -> None:
        self._place, self._coordinator = folder / "current", coordinator
        self._federation, self._spec = federation, spec

    def held(self) -> HeldAdapter | None:
        """What is held, or None. Raises RunError: damaged."""
        if not (self._place / _HELD).is_file():
            return None
        values, _ = read_json(self._place / _HELD, FORMAT)
        return HeldAdapter(**{name: value for name, value in values.items() if name != "format"})

    def held_since(self) -> float | None:
        """Unix time at which what is held was fetched; None if nothing is."""
        try:
            return (self._place / _HELD).stat().st_mtime
        except OSError:
            return None

    def load(self) -> AdapterState:
        """The adapter itself. Raises RunError: none yet, or damaged."""
        held = self.held()
        if held is None:
            raise RunError(f"{self._place.parent}: no adapter yet", "wait for the first round")
        state = AdapterState.from_bytes(read_file(self._place / _TENSORS))
        if state.hash != held.adapter_hash:
            raise RunError(f"{self._place / _TENSORS}: damaged", "remove the folder; the node fetches it again")
        return state

    def fetch(self, link: CoordinatorLink) -> HeldAdapter | None:
        """Take the coordinator's newest version if it is newer; None if it is not, or there is none yet.

        Raises: ProtocolError: signature, hashes or shapes are wrong, or it is older than what is held.
            UnreachableError. StorageError: what was held is held still.
        """
        told = link.adapter()
        head, manifest = told.get("head"), told.get("manifest")
        if head is None and manifest is None:
            return None
        if not isinstance(head, dict) or not isinstance(manifest, dict):
            raise ProtocolError("the coordinator sent no signed adapter")
        self._check(head, manifest)
        held, place = self.held(), (int(head["generation"]), int(head["round"]))
        if held is not None and place <= (held.generation, held.round):
            if place < (held.generation, held.round):
                raise ProtocolError(f"the coordinator offers round {place[1]}, which is older than what is held")
            return None
        content = link.tensors(str(manifest["files"]["adapter.safetensors"]))
        return self._keep(place, manifest, content)

    def _keep(self, place: tuple[int, int], manifest: dict[str, Any], content: bytes) -> HeldAdapter:
        try:
            state = AdapterState.from_bytes(content)
            state.check(self._spec)
        except ModelError as error:
            raise ProtocolError(f"the adapter of round {place[1]} is none of this model") from error
        if state.hash != manifest["adapter_hash"]:
            raise ProtocolError(f"the adapter of round {place[1]} is not the one of its manifest")
        held = HeldAdapter(*place, state.hash, dict(manifest["statement"]))
        files = {_TENSORS: content, _HELD: json_bytes({"format": FORMAT, **vars(held)})}
        with storage_errors(self._place.parent):
            place_folder(self._place, files)
            _forget_older(self._place)
        return held

    def _check(self, head: dict[str, Any], manifest: dict[str, Any]) -> None:
        """The head is the coordinator's, of this federation, and names exactly this manifest."""
        signature = str(head.get("signature", ""))
        values = {name: value for name, value in head.items() if name != "signature"}
        verify(self._coordinator, "adapter-version", values, signature)
        digest = hashlib.sha256(json_bytes(manifest)).hexdigest()
        if values.get("federation") != self._federation or values.get("manifest_sha256") != digest:
            raise ProtocolError("the signed adapter is of another federation, or its manifest was changed")


def _forget_older(place: Path) -> None:
    """`place_folder` sets the version before aside; one is enough here."""
    for older in place.parent.glob(f"{place.name}.*"):
        shutil.rmtree(older, ignore_errors=True)


def describe(held: HeldAdapter | None) -> dict[str, Any]:
    """For the partner's own people."""
    return {"round": None} if held is None else asdict(held)
