"""Committed adapter versions: each whole, hashed, chained to its parent; HEAD is a pointer to the newest."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fedrec.errors import ModelError, RunError
from fedrec.files import (
    damaged,
    json_bytes,
    make_folders,
    place_folder,
    read_file,
    read_json,
    replace_file,
    sha256,
    storage_errors,
)
from fedrec.model.adapter import AdapterState, read_tensors

FORMAT = 1
_ADAPTER, _SERVER_STATE, _MANIFEST = "adapter.safetensors", "server_state.safetensors", "manifest.json"
ServerState = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class AdapterVersion:
    """What a version's manifest says. Public to partners.

    Attributes:
        round: 0 is the adapter that the run began with.
        attempt: which try at the round gave it.
        parent: adapter hash of the version before; empty for round 0.
        parent_manifest: SHA-256 of that version's manifest; empty for round 0.
        adapter_hash: of the tensors.
        mode, statement: what is promised about privacy.
        created_at: ISO 8601, UTC.
        files: SHA-256 by file name.
    """

    round: int
    attempt: int
    parent: str
    parent_manifest: str
    adapter_hash: str
    mode: str
    statement: Mapping[str, Any]
    created_at: str
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its folder's name, `round-0007`."""
        return version_name(self.round)


def version_name(number: int) -> str:
    """Folder name of a round's version.

    >>> version_name(7)
    'round-0007'
    """
    return f"round-{number:04d}"


class Registry:
    """A folder of versions. One process writes; others may read at any time.

    `versions/round-0007/` holds `adapter.safetensors`, `server_state.safetensors` and `manifest.json`.
    Whatever happens while one is written, `HEAD` names the old or the new one, and what it names is whole.

    Args:
        folder: made at the first commit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = folder / "versions"
        self._head = folder / "HEAD"

    def head(self) -> AdapterVersion | None:
        """The newest version, or None before the first.

        Raises: RunError: damaged, of another format, or HEAD is gone though versions are there.
        """
        pointer = self._pointer()
        if pointer is None:
            return None
        version, found = self._manifest(pointer["round"])
        if found != pointer["manifest"]:
            raise damaged(self._versions / version.name / _MANIFEST)
        return version

    def head_round(self) -> int:
        """Round of the newest version. Raises RunError if there is none."""
        pointer = self._pointer()
        if pointer is None:
            raise RunError(f"{self.folder}: no version is committed yet", "run the first round")
        return int(pointer["round"])

    def version(self, number: int) -> AdapterVersion:
        """What a round's manifest says. Raises RunError for a round that HEAD does not lead to."""
        head = self.head_round()
        if not 0 <= number <= head:
            raise RunError(f"{self.folder}: round {number} is not committed", f"HEAD is at round {head}")
        return self._manifest(number)[0]

    def load(self, number: int) -> AdapterState:
        """The adapter of a committed round. Raises RunError if it is not committed or damaged."""
        version = self.version(number)
        path, content = self._content(version, _ADAPTER)
        try:
            state = AdapterState.from_bytes(content)
        except ModelError as error:
            raise damaged(path) from error
        if state.hash != version.adapter_hash:
            raise damaged(path)
        return state

    def load_head(self) -> AdapterState:
        """The newest adapter. Raises RunError if there is none or it is damaged."""
        return self.load(self.head_round())

    def load_server_state(self, number: int) -> ServerState:
        """What the server optimizer needs to go on from a round. Raises RunError like `load`."""
        path, content = self._content(self.version(number), _SERVER_STATE)
        try:
            return read_tensors(content)
        except ModelError as error:
            raise damaged(path) from error

    def commit(
        self,
        state: AdapterState,
        *,
        round: int,  # noqa: A002  # the glossary's word
        attempt: int = 1,
        parent: str,
        mode: str,
        statement: Mapping[str, Any],
        server_state: ServerState,
    ) -> AdapterVersion:
        """Write a version durably, then let HEAD name it.

        What lies there of this round, rolled back or written just before a crash, is set aside.

        Args:
            round: HEAD's plus one; 0 first.
            parent: adapter hash of HEAD's version; empty for round 0.
        Raises:
            RunError: the version does not follow HEAD.
            StorageError: no space or no permission; HEAD has not moved.
        """
        with self._alone():
            head = self.head()
            if (round, parent) != ((head.round + 1, head.adapter_hash) if head else (0, "")):
                raise RunError(f"{self.folder}: round {round} does not follow HEAD", "let one run write here")
            return self._write(head, state, round, attempt, parent, mode, statement, server_state)

    def _write(
        self,
        head: AdapterVersion | None,
        state: AdapterState,
        round: int,  # noqa: A002  # the glossary's word
        attempt: int,
        parent: str,
        mode: str,
        statement: Mapping[str, Any],
        server_state: ServerState,
    ) -> AdapterVersion:
        contents = {_ADAPTER: state.to_bytes(), _SERVER_STATE: bytes(save(dict(server_state)))}
        version = AdapterVersion(
            round=round,
            attempt=attempt,
            parent=parent,
            parent_manifest=self._manifest(head.round)[1] if head else "",
            adapter_hash=state.hash,
            mode=mode,
            statement=dict(statement),
            created_at=_now(),
            files={name: sha256(content) for name, content in contents.items()},
        )
        manifest = json_bytes({"format": FORMAT, **asdict(version)})
        with storage_errors(self.folder):
            place_folder(self._versions / version.name, {**contents, _MANIFEST: manifest})
        self._point(round, sha256(manifest), self._rollbacks())
        return version

    def rollback(self, number: int) -> AdapterVersion:
        """Let HEAD name an earlier version again. HEAD records that; nothing is deleted.

        Raises: RunError: that round is damaged or not committed. StorageError: HEAD has not moved.
        """
        self.load(number)
        self.load_server_state(number)
        with self._alone():
            version, manifest = self._manifest(number)
            record = {"from": self.head_round(), "to": number, "at": _now()}
            self._point(number, manifest, [*self._rollbacks(), record])
        return version

    def verify(self) -> int:
        """Check every file from HEAD back to round 0. Returns the number of versions.

        Raises: RunError: naming the first file that is not what was committed.
        """
        pointer = self._pointer()
        if pointer is None:
            return 0
        manifest, adapter_hash = pointer["manifest"], None
        for number in range(pointer["round"], -1, -1):
            version, found = self._manifest(number)
            if found != manifest or adapter_hash not in (None, version.adapter_hash):
                raise damaged(self._versions / version.name / _MANIFEST)
            self.load(number)
            self.load_server_state(number)
            manifest, adapter_hash = version.parent_manifest, version.parent
        return int(pointer["round"]) + 1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A round that ends just while somebody rolls back must not be committed behind its back."""
        with storage_errors(self.folder):
            make_folders(self.folder)
            file = (self.folder / ".lock").open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _pointer(self) -> dict[str, Any] | None:
        """HEAD: round, SHA-256 of that round's manifest, and every rollback so far."""
        if not self._head.exists():
            if (self._versions / version_name(1)).exists():
                raise RunError(f"{self._head}: missing, though versions are there", "restore it from a copy")
            return None
        pointer, _ = read_json(self._head, FORMAT)
        types = {"format": int, "round": int, "manifest": str, "rollbacks": list}
        if {name: type(value) for name, value in pointer.items()} != types:
            raise damaged(self._head)
        return pointer

    def _rollbacks(self) -> list[Mapping[str, Any]]:
        pointer = self._pointer()
        return list(pointer["rollbacks"]) if pointer else []

    def _point(self, number: int, manifest: str, rollbacks: list[Mapping[str, Any]]) -> None:
        content = {"format": FORMAT, "round": number, "manifest": manifest, "rollbacks": rollbacks}
        with storage_errors(self.folder):
            replace_file(self._head, json_bytes(content))

    def _manifest(self, number: int) -> tuple[AdapterVersion, str]:
        """A round's manifest, and the SHA-256 of its bytes."""
        path = self._versions / version_name(number) / _MANIFEST
        values, found = read_json(path, FORMAT)
        del values["format"]
        if values.keys() != {field.name for field in fields(AdapterVersion)} or values["round"] != number:
            raise damaged(path)
        return AdapterVersion(**values), found

    def _content(self, version: AdapterVersion, name: str) -> tuple[Path, bytes]:
        """A file of a version, if its hash is right."""
        path = self._versions / version.name / name
        content = read_file(path)
        if sha256(content) != dict(version.files).get(name):
            raise damaged(path)
        return path, content


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
