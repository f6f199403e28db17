"""The coordinator's own keys change whole or are gone on with, wherever a crash fell."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from typer.testing import CliRunner

from fedrec.errors import ConfigError, RunError, StorageError
from fedrec.model.adapter import AdapterState
from fedrec.processes import only_one
from fedrec.signing import verify
from fedrec_server import settings
from fedrec_server.cli import app
from fedrec_server.keys import authority_rotation, certificates, key_rotation
from fedrec_server.keys.authority_rotation import begin_authority, finish_authority
from fedrec_server.keys.key_rotation import key_papers, refuse_unfinished, rotate_signing_key, statements
from fedrec_server.rounds import heads
from fedrec_server.settings import Coordinator, make_coordinator
from fedrec_server.state.store import Office

PORTS = {"GATEWAY_PORT": 8443, "SUPERLINK_PORT": 9191, "ADMIN_PORT": 8444}
Write = Callable[[Path, bytes], None]


class Terms:
    """As much of a federation as is signed."""

    name = "films"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    """A coordinator with signed terms and a signed head."""
    coordinator = Coordinator(
        make_coordinator(tmp_path / "coordinator", name="films", hosts=("localhost",), ports=PORTS).folder
    )
    (coordinator.folder / "federation").mkdir()
    (coordinator.folder / "federation" / "terms.json").touch()
    federation = type("Federation", (), {"terms": Terms()})()
    monkeypatch.setattr(Coordinator, "federation", lambda self: federation)
    coordinator.sign_terms()
    state = AdapterState({"w": np.zeros(2, np.float32)})
    statement = {"mode": "none"}
    coordinator.registry.commit(state, round=0, parent="", mode="none", statement=statement, server_state={})
    coordinator.heads.sign(coordinator.signing_key(), "films", 1)
    yield coordinator
    coordinator.database.close()


def check_whole(coordinator: Coordinator) -> None:
    """Everything that partners can ask for is signed by the key at the end of the chain, which is the one in use."""
    refuse_unfinished(coordinator)
    key = coordinator.signing_key().public
    chain = statements(coordinator)
    assert not chain or chain[-1].new_key == key.hex()
    verify(key, "federation-terms", Terms().to_dict(), coordinator.terms_signature())
    head = coordinator.heads.read().to_dict()
    verify(key, "adapter-version", {name: head[name] for name in head if name != "signature"}, head["signature"])
    if (told := key_papers(coordinator)["authorities"]) is not None:
        signed = {name: told[name] for name in ("sequence", "certificates")}
        verify(key, "authorities", signed, told["signature"])
        assert (coordinator.keys / "ca.pem").read_text() in told["certificates"]
    authority = x509.load_pem_x509_certificate((coordinator.keys / "ca.pem").read_bytes())
    x509.load_pem_x509_certificate((coordinator.keys / "server.pem").read_bytes()).verify_directly_issued_by(authority)


def test_a_rotation_signs_everything_anew_and_is_noted(made: Coordinator) -> None:
    check_whole(made)
    old = made.signing_key()
    for number in (1, 2, 3):
        assert rotate_signing_key(made).sequence == number
        check_whole(made)
    assert statements(made)[0].old_key == old.public.hex()
    assert (made.keys / "signing.key").stat().st_mode & 0o777 == 0o600
    assert [line["what"] for line in Office(made.database).audit()] == ["signing key rotated"] * 3
    assert sorted(path.name for path in made.keys.iterdir() if "signing" in path.name) == ["signing.key"]


def test_before_a_federation_is_taken_the_key_may_change_too(made: Coordinator) -> None:
    shutil.rmtree(made.folder / "federation")
    shutil.rmtree(made.registry.folder)
    rotate_signing_key(made)
    refuse_unfinished(made)


def halves(coordinator: Coordinator) -> str:
    """What a start would tell to do first."""
    try:
        refuse_unfinished(coordinator)
    except ConfigError as error:
        return error.remedy
    return ""


def failing(survives: int) -> Callable[[Write], Write]:
    """Writes of all modules counted together; those after the first so many fail, as on a full disk."""
    left = iter(range(1000))

    def wrap(real: Write) -> Write:
        def write(path: Path, content: bytes) -> None:
            if next(left) >= survives:
                raise OSError(28, "No space left on device")
            real(path, content)

        return write

    return wrap


@pytest.mark.parametrize("survives", range(12))
@pytest.mark.parametrize("what", ["key", "authority"])
def test_a_crash_at_any_write_is_gone_on_with_and_nothing_starts_until_then(
    made: Coordinator, monkeypatch: pytest.MonkeyPatch, what: str, survives: int
) -> None:
    begin_authority(made)
    rotate = rotate_signing_key if what == "key" else finish_authority
    before = made.signing_key().public
    failed = False
    with monkeypatch.context() as patch:
        wrap = failing(survives)
        for module in (key_rotation, authority_rotation, certificates, heads, settings):
            patch.setattr(module, "replace_file", wrap(module.replace_file))
        try:
            rotate(made)
        except StorageError:
            failed = True
    if failed:
        if half := halves(made):
            assert half.startswith("flower-server rotate-")
        else:
            check_whole(made)  # nothing had begun
        rotate(made)
    assert failed == (survives < (5 if what == "key" else 6))
    check_whole(made)
    assert len(statements(made)) == (1 if what == "key" else 0)
    assert (made.signing_key().public != before) == (what == "key")


def test_a_coordinator_that_runs_is_told_to_stop_first(made: Coordinator) -> None:
    begin_authority(made)  # phase 1 needs no stop
    for rotate in (rotate_signing_key, finish_authority):
        with only_one(made.lock, ""), pytest.raises(RunError, match="runs already") as found:
            rotate(made)
        assert "flower-server stop" in found.value.remedy
    check_whole(made)


def test_an_older_copy_of_the_keys_is_told(made: Coordinator) -> None:
    """Partners would refuse whatever it signed, and never say why."""
    old = (made.keys / "signing.key").read_bytes()
    rotate_signing_key(made)
    (made.keys / "signing.key").write_bytes(old)
    for call in (refuse_unfinished, rotate_signing_key):
        with pytest.raises(ConfigError, match="is not the newest") as found:
            call(made)
        assert "after the latest rotation" in found.value.remedy


def test_an_authority_that_is_not_ours_is_not_changed(made: Coordinator) -> None:
    (made.keys / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.key"):
        begin_authority(made)


def call(made: Coordinator, *words: str) -> dict[str, Any]:
    answer = CliRunner().invoke(app, [*words, "--dir", str(made.folder), "--json"])
    assert answer.exit_code == 0, answer.output
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def test_commands_tell_what_people_compare(made: Coordinator) -> None:
    key = call(made, "rotate-key")
    assert key["coordinator"] == made.signing_key().public.hex()
    first = call(made, "rotate-authority")
    assert call(made, "rotate-authority", "--finish") == {"authority": first["authority"], "finished": True}
    check_whole(made)


def test_the_admin_token_is_replaced_but_never_printed(made: Coordinator) -> None:
    path = made.keys / "admin.token"
    before = path.read_text()
    assert call(made, "token") == {"token_file": str(path), "rotated": False}
    assert path.read_text() == before
    answer = CliRunner().invoke(app, ["token", "--rotate", "--dir", str(made.folder)])
    after = path.read_text()
    assert after != before
    assert after not in answer.output
    assert path.stat().st_mode & 0o777 == 0o600
    assert Office(made.database).audit(1)[0]["what"] == "admin token rotated"
