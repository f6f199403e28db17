"""The certificate authority changes in two phases: partners trust the next one before anything depends on it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrec.errors import ConfigError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors, sync_folder
from fedrec.processes import only_one
from fedrec.signing import read_secret
from fedrec_server.keys.certificates import authority_fingerprint, make_authority, make_server_certificate
from fedrec_server.settings import Coordinator
from fedrec_server.state.store import Office

FORMAT = 1
_TOLD, _NEXT, _FINISHING = "authorities.json", "next-authority", "finishing"
_STOP_FIRST = "flower-server stop, then this again, then flower-server start"


def begin_authority(coordinator: Coordinator) -> str:
    """Phase 1: make the next authority and let partners trust both. Nothing depends on the next one yet.

    Returns: its SHA-256. The same when it is called again: there is one next one at a time.
    Raises: ConfigError: the authority's key is not here. StorageError.
    """
    read_secret(coordinator.keys / "ca.key")  # one that somebody else issues is not ours to change
    following = coordinator.keys / _NEXT
    if not (following / "ca.pem").exists():
        shutil.rmtree(following, ignore_errors=True)  # of a try that stopped between key and certificate
        make_authority(following, coordinator.settings.name)
    pems = [_pem(coordinator.keys), _pem(following)]
    _tell(coordinator, pems)
    print_ = authority_fingerprint(pems[1].encode())
    Office(coordinator.database).note("cli", "next authority handed out", {"authority": print_[:16]})
    return print_


def finish_authority(coordinator: Coordinator) -> str:
    """Phase 2: issue the server certificate from the next authority; the one before counts no more.

    Goes on after a crash, at any step. Returns: its SHA-256.
    Raises: RunError: the coordinator runs. ConfigError: phase 1 was not done. StorageError.
    """
    following = coordinator.keys / _NEXT
    if not (following / "ca.pem").exists():
        raise ConfigError("there is no next authority", "flower-server rotate-authority first, and give partners a day")
    with only_one(coordinator.lock, _STOP_FIRST), storage_errors(coordinator.keys):
        replace_file(following / _FINISHING, b"")
        for name in ("ca.key", "ca.pem"):
            replace_file(coordinator.keys / name, (following / name).read_bytes())
        make_server_certificate(coordinator.keys, coordinator.settings.gateway.public_hosts)
        _tell(coordinator, [_pem(coordinator.keys)])
        told = authority_fingerprint((coordinator.keys / "ca.pem").read_bytes())
        Office(coordinator.database).note("cli", "authority rotated", {"authority": told[:16]})
        spent = following.rename(following.with_name(f".{_NEXT}.spent"))
        sync_folder(coordinator.keys)
        shutil.rmtree(spent, ignore_errors=True)
    return told


def refuse_unfinished_authority(coordinator: Coordinator) -> None:
    """Raises ConfigError: phase 2 stopped half-way."""
    if (coordinator.keys / _NEXT / _FINISHING).exists():
        raise ConfigError("the authority is half rotated", "flower-server rotate-authority --finish goes on with it")


def authorities_told(coordinator: Coordinator) -> dict[str, Any] | None:
    """Certificates that partners shall trust, signed; None until there was a rotation. Raises RunError: damaged."""
    path = coordinator.keys / _TOLD
    if not path.exists():
        return None
    values, _ = read_json(path, FORMAT)
    return {name: values[name] for name in ("sequence", "certificates", "signature")}


def sign_authorities(coordinator: Coordinator) -> None:
    """Anew, with a signing key that changed. StorageError."""
    if (told := authorities_told(coordinator)) is not None:
        _write(coordinator, int(told["sequence"]), told["certificates"])


def _tell(coordinator: Coordinator, certificates: Sequence[str]) -> None:
    """Under the next number, unless just these are told already."""
    told = authorities_told(coordinator) or {"sequence": 0, "certificates": []}
    if told["certificates"] != list(certificates):
        _write(coordinator, int(told["sequence"]) + 1, certificates)


def _write(coordinator: Coordinator, sequence: int, certificates: Sequence[str]) -> None:
    values: dict[str, Any] = {"sequence": sequence, "certificates": list(certificates)}
    signature = coordinator.signing_key().sign("authorities", values)
    with storage_errors(coordinator.keys):
        replace_file(coordinator.keys / _TOLD, json_bytes({"format": FORMAT, **values, "signature": signature}))


def _pem(folder: Path) -> str:
    return (folder / "ca.pem").read_text(encoding="ascii")
