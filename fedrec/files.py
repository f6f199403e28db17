"""Files that are whole or absent, whatever happens while they are written, and words for damaged ones."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any

from fedrec.errors import RunError, StorageError


def place_folder(place: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder beside its place, sync it, rename it. One that is there is set aside, never deleted.

    Raises: OSError: nothing has changed then but for what a crash may leave, which the next call removes.
    """
    make_folders(place.parent)
    fresh = place.with_name(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        for name, content in contents.items():
            _write_synced(fresh / name, content)
        sync_folder(fresh)
        if place.exists():
            place.rename(_free_name(place))
        fresh.rename(place)
        sync_folder(place.parent)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def replace_file(path: Path, content: bytes, writer: str = "") -> None:
    """Readers see the old file or the new one. Raises OSError.

    Args:
        writer: tells writers apart where several may write the file at once, or one would rename what another writes.
    """
    fresh = path.with_name(f".{path.name}{writer}.new")
    try:
        _write_synced(fresh, content)
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder to fill beside a free place; renamed to it at the end, gone after an exception. Raises StorageError."""
    fresh = place.with_name(f".{place.name}.new")
    with storage_errors(place.parent):
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            yield fresh
            sync_folder(fresh)
            fresh.rename(place)
            sync_folder(place.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises RunError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}", "restore it from a copy") from error


def read_json(path: Path, number: int) -> tuple[dict[str, Any], str]:
    """A JSON object of one format number, and the SHA-256 of its bytes.

    Raises: RunError: damaged, or of an older or newer format, with what to do about it.
    """
    content = read_file(path)
    try:
        values = json.loads(content)
    except ValueError as error:
        raise damaged(path) from error
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not int:
        raise damaged(path)
    if found != number:
        newer, older = "update fedrec", "go on with the fedrec that wrote it, or start a new run"
        remedy = newer if found > number else older
        raise RunError(f"{path}: has format {found}, this fedrec reads {number}", remedy)
    return values, sha256(content)


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """The same values give the same bytes."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def sha256(content: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(content).hexdigest()


def damaged(path: Path) -> RunError:
    """The error for a file that is not what was written."""
    return RunError(f"{path}: damaged: not what was committed", "restore it from a copy, or start a new run")


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns a disk that is full or may not be written into a StorageError that names the folder."""
    try:
        yield
    except OSError as error:
        reason = "no space left" if error.errno in (ENOSPC, EDQUOT) else str(error.strerror)
        remedy = "free space or mend permissions, then resume"
        raise StorageError(f"{folder}: cannot be written: {reason}", remedy) from error


def make_folders(folder: Path) -> None:
    """Durably, unlike `mkdir(parents=True)`."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _free_name(place: Path) -> Path:
    """`round-0007.1`, `round-0007.2`, ...: the first that is free."""
    number = 1
    while (free := place.with_name(f"{place.name}.{number}")).exists():
        number += 1
    return free


def _write_synced(path: Path, content: bytes) -> None:
    """For its owner only from the first moment: keys and reports on private rows are written here too."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
