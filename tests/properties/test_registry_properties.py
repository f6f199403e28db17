"""Any sequence of commits, rollbacks, crashes and full disks: HEAD names the old or the new one, whole."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedrec.errors import StorageError
from fedrec.model.adapter import AdapterState
from fedrec.registry.registry import Registry

FSYNC = os.fsync  # too slow to be called; what it would make durable is there anyway


class Killed(BaseException):
    """As if the process had ended: no handler of the code under test may mend anything."""


@contextmanager
def fault(kind: str, at: int) -> Iterator[None]:
    """Fail at the n-th thing done to the disk; a file that was being synced is then only half there."""
    left = at

    def act(original: Any) -> Any:
        def acting(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if original is FSYNC and S_ISREG(os.fstat(arguments[0]).st_mode):
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                raise Killed if kind == "kill" else OSError(errno.ENOSPC, "No space left on device")
            return None if original is FSYNC else original(*arguments, **named)

        return acting

    with pytest.MonkeyPatch.context() as patched:
        for place, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir")):
            patched.setattr(place, name, act(getattr(place, name)))
        yield


operations = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(["none", "kill", "full"]), st.integers(1, 14)),
    st.tuples(st.just("rollback"), st.sampled_from(["none", "kill", "full"]), st.integers(1, 4)),
)


def head_hash(folder: Path) -> str:
    head = Registry(folder).head()
    return head.adapter_hash if head else ""


@settings(max_examples=50, deadline=None)
@example([(("commit", "kill", 6), 0), (("commit", "none", 1), 0)])
@given(st.lists(st.tuples(operations, st.integers(0, 5)), min_size=1, max_size=8))
def test_head_is_old_or_new_and_always_whole(steps: list[tuple[tuple[str, str, int], int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, chain = Path(name) / "registry", [""]  # adapter hashes that HEAD leads to
        for number, ((act, kind, at), target) in enumerate(steps):
            registry = Registry(folder)
            state = AdapterState({"w": np.full(2, number, np.float32)})
            if act == "commit":
                wanted = [*chain, state.hash]
            elif len(chain) > 1:
                wanted = chain[: 2 + target % (len(chain) - 1)]
            else:
                continue
            try:
                with fault(kind, at if kind != "none" else 0):
                    if act == "commit":
                        registry.commit(
                            state,
                            round=len(chain) - 1,
                            parent=chain[-1],
                            mode="none",
                            statement={},
                            server_state={},
                        )
                    else:
                        registry.rollback(len(wanted) - 2)
                assert head_hash(folder) == wanted[-1]
            except Killed:
                assert kind == "kill"
            except StorageError:
                assert kind == "full"
            found = head_hash(folder)
            assert found in (chain[-1], wanted[-1])
            chain = wanted if found == wanted[-1] else chain
            reopened = Registry(folder)
            assert reopened.verify() == len(chain) - 1
            assert [reopened.load(n).hash for n in range(len(chain) - 1)] == chain[1:]
