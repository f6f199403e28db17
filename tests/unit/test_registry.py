"""Versions on disk: whole, chained, and refused in words when they are not what was committed."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedrec.errors import RunError, StorageError
from fedrec.model.adapter import AdapterState
from fedrec.registry.registry import AdapterVersion, Registry

STATEMENT = {"unit": "user", "epsilon": 8.0}


def adapter(number: int) -> AdapterState:
    return AdapterState({"w": np.full(3, number, np.float32)})


def commit(registry: Registry, number: int, state: AdapterState | None = None) -> AdapterVersion:
    head = registry.head()
    return registry.commit(
        state or adapter(number),
        round=number,
        attempt=2,
        parent=head.adapter_hash if head else "",
        mode="inspect",
        statement=STATEMENT,
        server_state={"head/step": np.array(number, np.int64)} if number else {},
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Rounds 0 to 3."""
    registry = Registry(tmp_path / "a" / "registry")
    for number in range(4):
        commit(registry, number)
    return registry


def test_what_was_committed_is_there_in_another_process(registry: Registry) -> None:
    again = Registry(registry.folder)
    assert again.verify() == 4
    assert again.load_head().hash == adapter(3).hash
    assert again.load(1).hash == adapter(1).hash
    assert int(again.load_server_state(2)["head/step"]) == 2
    assert again.load_server_state(0) == {}
    head = again.head()
    assert head is not None
    assert (head.name, head.round, head.attempt, head.mode) == ("round-0003", 3, 2, "inspect")
    assert head.statement == STATEMENT
    assert head.parent == adapter(2).hash
    names = {path.name for path in (registry.folder / "versions/round-0003").iterdir()}
    assert names == {"adapter.safetensors", "server_state.safetensors", "manifest.json"}


def test_an_empty_registry_has_no_head(tmp_path: Path) -> None:
    empty = Registry(tmp_path / "none")
    assert empty.head() is None
    assert empty.verify() == 0
    assert not empty.folder.exists()
    for ask in (empty.head_round, empty.load_head, lambda: empty.load(0), lambda: empty.rollback(0)):
        with pytest.raises(RunError, match="no version is committed"):
            ask()


@pytest.mark.parametrize(("number", "before"), [(5, 3), (3, 3), (4, 2)])
def test_a_version_must_follow_head(registry: Registry, number: int, before: int) -> None:
    parent = adapter(before).hash
    with pytest.raises(RunError, match="does not follow HEAD"):
        registry.commit(adapter(9), round=number, parent=parent, mode="none", statement={}, server_state={})
    assert registry.head_round() == 3


@pytest.mark.parametrize("number", [-1, 4])
def test_rounds_that_are_not_committed_are_not_loaded(registry: Registry, number: int) -> None:
    with pytest.raises(RunError, match=f"round {number} is not committed"):
        registry.load(number)


@pytest.mark.parametrize("name", ["adapter.safetensors", "server_state.safetensors", "manifest.json"])
@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_every_damaged_file_is_named(registry: Registry, name: str, number: int, damage: str) -> None:
    path = registry.folder / "versions" / f"round-{number:04d}" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        place = content.index(b'"epsilon": 8') + 11 if name == "manifest.json" else len(content) - 1
        content[place] ^= 1  # the manifest stays JSON: an epsilon of 9
        path.write_bytes(content)
    with pytest.raises(RunError, match=f"round-{number:04d}/{name}"):
        registry.verify()
    if number == 3:
        with pytest.raises(RunError, match=name):
            (registry.head(), registry.load_head(), registry.load_server_state(3))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": "1"}', b"\xff\xfe"])
def test_a_damaged_head_is_named(registry: Registry, content: bytes) -> None:
    (registry.folder / "HEAD").write_bytes(content)
    with pytest.raises(RunError, match="HEAD: damaged"):
        registry.head()


def test_a_head_that_is_gone_does_not_start_the_run_anew(registry: Registry) -> None:
    (registry.folder / "HEAD").unlink()
    with pytest.raises(RunError, match="HEAD: missing"):
        registry.head()


@pytest.mark.parametrize(("number", "words"), [(0, "start a new run"), (2, "update fedrec")])
@pytest.mark.parametrize("name", ["HEAD", "versions/round-0003/manifest.json"])
def test_another_format_is_refused_in_words(registry: Registry, name: str, number: int, words: str) -> None:
    path = registry.folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": number}))
    with pytest.raises(RunError, match=words) as caught:
        registry.head()
    assert f"{path}: has format {number}, this fedrec reads 1" in str(caught.value)


def test_rollback_moves_head_is_recorded_and_loses_nothing(registry: Registry) -> None:
    assert registry.rollback(1).adapter_hash == adapter(1).hash
    assert registry.load_head().hash == adapter(1).hash
    with pytest.raises(RunError, match="round 2 is not committed"):
        registry.load(2)
    commit(registry, 2, adapter(20))
    assert registry.load_head().hash == adapter(20).hash
    assert registry.verify() == 3
    pointer = json.loads((registry.folder / "HEAD").read_text())
    assert [(r["from"], r["to"]) for r in pointer["rollbacks"]] == [(3, 1)]
    registry.rollback(0)
    pointer = json.loads((registry.folder / "HEAD").read_text())
    assert [(r["from"], r["to"]) for r in pointer["rollbacks"]] == [(3, 1), (2, 0)]
    assert (registry.folder / "versions/round-0002.1/adapter.safetensors").is_file()


def test_rollback_to_a_damaged_version_is_refused(registry: Registry) -> None:
    (registry.folder / "versions/round-0001/server_state.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="server_state"):
        registry.rollback(1)
    assert registry.head_round() == 3


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "Read-only")])
def test_a_full_or_read_only_disk_leaves_everything_as_it_was(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    before = {path: path.read_bytes() for path in registry.folder.rglob("*") if path.is_file()}

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    acts: list[Callable[[], object]] = [lambda: commit(registry, 4), lambda: registry.rollback(1)]
    for act in acts:
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(StorageError, match=words):
                act()
        assert {path: path.read_bytes() for path in registry.folder.rglob("*") if path.is_file()} == before
    commit(registry, 4)


def test_what_reaches_the_disk_is_synced_before_it_gets_its_name(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    folder = str(registry.folder)

    def log(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def logged(*arguments: object) -> object:
            descriptor = Path(f"/proc/self/fd/{arguments[0]}")
            place = descriptor.readlink() if name == "sync" else arguments[0]
            done.append(f"{name} {str(place).removeprefix(folder + '/')}")
            return original(*arguments)

        return logged

    monkeypatch.setattr("os.fsync", log("sync", os.fsync))
    monkeypatch.setattr(Path, "rename", log("rename", Path.rename))
    monkeypatch.setattr(Path, "replace", log("rename", Path.replace))
    commit(registry, 4)
    assert done == [
        "sync versions/.new/adapter.safetensors",
        "sync versions/.new/server_state.safetensors",
        "sync versions/.new/manifest.json",
        "sync versions/.new",
        "rename versions/.new",
        "sync versions",
        "sync .HEAD.new",
        "rename .HEAD.new",
        f"sync {folder}",
    ]
