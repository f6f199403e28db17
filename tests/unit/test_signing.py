"""Signatures bind who, what and what for; keys are for their owner alone."""

from pathlib import Path

import pytest

from fedrec.errors import ConfigError, ProtocolError
from fedrec.signing import SigningKey, fingerprint, read_secret, verify

KEY, OTHER = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))
VALUES = {"round": 1, "rate": 0.5, "run": "films/1"}


def test_a_signature_holds_for_exactly_what_was_signed() -> None:
    signature = KEY.sign("round-plan", VALUES)
    verify(KEY.public, "round-plan", dict(reversed(VALUES.items())), signature)


@pytest.mark.parametrize("case", ["values", "purpose", "key", "cut", "no base64", "empty"])
def test_anything_else_is_refused(case: str) -> None:
    signature = KEY.sign("round-plan", VALUES)
    values = {**VALUES, "round": 2} if case == "values" else VALUES
    public = OTHER.public if case == "key" else KEY.public
    shown = {"cut": signature[:-4], "no base64": "ü" * 88, "empty": ""}.get(case, signature)
    with pytest.raises(ProtocolError, match="is not that of"):
        verify(public, "answer" if case == "purpose" else "round-plan", values, shown)


def test_a_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.key"
    made = SigningKey.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path).public == made.public
    assert repr(made) == f"SigningKey({fingerprint(made.public)})"
    with pytest.raises(ConfigError, match="is there already"):
        SigningKey.create(path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    SigningKey.create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others"):
        SigningKey.load(path)


def test_a_missing_or_cut_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "none")
    (tmp_path / "cut").write_bytes(b"x")
    (tmp_path / "cut").chmod(0o600)
    with pytest.raises(ConfigError, match="is no key"):
        SigningKey.load(tmp_path / "cut")
