"""The coordinator's signing key changes: the old one vouches for the new one, and partners follow by themselves."""

from dataclasses import asdict
from typing import Any

from fedrec.errors import ConfigError
from fedrec.files import json_bytes, read_json, replace_file, storage_errors, sync_folder
from fedrec.key_statements import KeyStatement, read_statements
from fedrec.processes import only_one
from fedrec.signing import SigningKey, fingerprint, read_secret
from fedrec_server.keys.authority_rotation import authorities_told, refuse_unfinished_authority, sign_authorities
from fedrec_server.settings import Coordinator
from fedrec_server.state.store import GENERATION, Office, now

FORMAT = 1
_STOP_FIRST = "flower-server stop, then this again, then flower-server start"
_STATEMENTS, _NEXT = "statements.json", "signing.key.next"


def rotate_signing_key(coordinator: Coordinator) -> KeyStatement:
    """Make a new key, let the old one vouch for it, and sign anew what was signed. Goes on after a crash, at any step.

    Returns: the old key's statement; the old key itself is gone.
    Raises: RunError: the coordinator runs. ConfigError: the key is not that of the chain. StorageError.
    """
    with only_one(coordinator.lock, _STOP_FIRST), storage_errors(coordinator.keys):
        place = coordinator.keys / _NEXT
        if not place.exists():
            _refuse_other_key(coordinator.signing_key(), statements(coordinator))
            SigningKey.create(place)
        fresh = SigningKey.load(place)
        statement = _stated(coordinator, fresh)
        # From here on partners may know the new key, so that nothing else can be done than go on.
        replace_file(coordinator.keys / "signing.key", read_secret(place))
        _sign_anew(coordinator)
        told = {"sequence": statement.sequence, "new": fingerprint(fresh.public)}
        Office(coordinator.database).note("cli", "signing key rotated", told)
        place.unlink()
        sync_folder(coordinator.keys)
    return statement


def statements(coordinator: Coordinator) -> tuple[KeyStatement, ...]:
    """The chain, oldest first. Raises RunError: damaged. ProtocolError: changed by somebody."""
    path = coordinator.keys / _STATEMENTS
    return read_statements(read_json(path, FORMAT)[0].get("statements")) if path.exists() else ()


def key_papers(coordinator: Coordinator) -> dict[str, Any]:
    """What partners are told: the chain, and which authorities count. Public to partners. Raises as `statements`."""
    chain = [asdict(statement) for statement in statements(coordinator)]
    return {"statements": chain, "authorities": authorities_told(coordinator)}


def refuse_unfinished(coordinator: Coordinator) -> None:
    """Raises ConfigError: a rotation stopped half-way, or `keys/` is older than the latest one."""
    if (coordinator.keys / _NEXT).exists():
        raise ConfigError("the signing key is half rotated", "flower-server rotate-key goes on with it")
    refuse_unfinished_authority(coordinator)
    _refuse_other_key(coordinator.signing_key(), statements(coordinator))


def _stated(coordinator: Coordinator, fresh: SigningKey) -> KeyStatement:
    """The statement about the new key, written down unless an earlier try did."""
    chain, old = statements(coordinator), coordinator.signing_key()
    if chain and chain[-1].new_key == fresh.public.hex():
        return chain[-1]
    statement = KeyStatement.make(len(chain) + 1, old, fresh.public, now())
    values = {"format": FORMAT, "statements": [asdict(one) for one in (*chain, statement)]}
    replace_file(coordinator.keys / _STATEMENTS, json_bytes(values))
    return statement


def _sign_anew(coordinator: Coordinator) -> None:
    """All that partners ask for at any time; plans are signed when they are made."""
    key = coordinator.signing_key()
    sign_authorities(coordinator)
    if coordinator.has_federation():
        coordinator.sign_terms()
        if coordinator.registry.head() is not None:
            generation = int(Office(coordinator.database).setting(GENERATION, "1"))
            coordinator.heads.sign(key, coordinator.federation().terms.name, generation)


def _refuse_other_key(key: SigningKey, chain: tuple[KeyStatement, ...]) -> None:
    if chain and chain[-1].new_key != key.public.hex():
        words = f"keys/signing.key is {fingerprint(key.public)}, which is not the newest of keys/{_STATEMENTS}"
        raise ConfigError(words, "restore keys/ from a copy that was made after the latest rotation")
