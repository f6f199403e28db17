"""Commands of `flower-server` that change keys. When and how: docs/operations.md, "Key rotation"."""

import os
from typing import Annotated, Any

import typer

from fedrec_server.command_words import HERE, AsJson, Folder, coordinator_of, say

keys = typer.Typer()


@keys.command("rotate-key")
def rotate_key(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Put a new signing key in place of the coordinator's; partners follow by themselves. Stop first."""
    from fedrec.signing import fingerprint
    from fedrec_server.keys.key_rotation import rotate_signing_key

    statement = rotate_signing_key(coordinator_of(folder))
    old, new = (fingerprint(bytes.fromhex(key)) for key in (statement.old_key, statement.new_key))
    told = {"sequence": statement.sequence, "coordinator": statement.new_key, "fingerprint": new}
    say(told, as_json, f"{old} vouches for {new}, statement {statement.sequence}. Copy keys/ anew, then start.")


@keys.command("rotate-authority")
def rotate_authority(
    folder: Folder = HERE,
    finish: Annotated[bool, typer.Option("--finish", help="Phase 2: let the next one count. Stop first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Phase 1: make the next certificate authority and let partners trust both. A day later: `--finish`."""
    from fedrec_server.keys.authority_rotation import begin_authority, finish_authority

    made = coordinator_of(folder)
    authority = finish_authority(made) if finish else begin_authority(made)
    after = "counts alone. Copy keys/ anew, then start." if finish else "is handed out; --finish once partners have it."
    say({"authority": authority, "finished": finish}, as_json, f"authority {authority} {after}")


@keys.command()
def token(
    folder: Folder = HERE,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new one; the old one and every session end at once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Where the admin pages' token lies; it is never printed."""
    from fedrec.files import replace_file, storage_errors
    from fedrec_server.state.store import Office

    made = coordinator_of(folder)
    path = made.keys / "admin.token"
    if rotate:
        with storage_errors(made.keys):
            replace_file(path, os.urandom(24).hex().encode())
        Office(made.database).note("cli", "admin token rotated", {})
    told: dict[str, Any] = {"token_file": str(path), "rotated": rotate}
    say(told, as_json, f"{path}{': new, and counts from now on' if rotate else ''}")
