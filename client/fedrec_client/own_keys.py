"""This partner's own keys change; rows, ledger and memory of rounds stay, for the budget is bound to the data."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedrec.errors import ConfigError, FedrecError, ProtocolError, RunError
from fedrec.files import new_folder, replace_file, sha256, storage_errors, sync_folder
from fedrec.invitation import REPLACE_KEYS, Invitation
from fedrec.processes import only_one
from fedrec.signing import SigningKey, read_secret
from fedrec_client.coordinator_keys import authority_fingerprints
from fedrec_client.coordinator_link import CoordinatorLink, fetch_authority, meet
from fedrec_client.node_key import make_node_key
from fedrec_client.settings import Node

_NEXT, _SPENT, _WHY = "next", ".spent", "why"
_SECRETS = ("node.key", "signing.key")  # in the order in which they are put in place
_ROTATED = "rotate"


def rotate(node: Node, link: CoordinatorLink | None = None) -> dict[str, Any]:
    """Put new signing and node keys in place, for which the old signing key vouches. Goes on after a crash.

    Returns: how the coordinator says that this partner stands.
    Raises:
        RunError: the node runs.
        ProtocolError: the coordinator refuses. UnreachableError, StorageError: repeat; the same new keys go over.
    """
    with _stopped(node):
        fresh = _next_keys(node, _ROTATED, may_go_on_with_others=True)
        link = link or CoordinatorLink(node)
        told = _asked(fresh, link, lambda: link.rotate(fresh))
        _put_in_place(node)
    return told


def rekey(
    node: Node, invitation: Invitation, *, new_noise_key: bool = False, link: CoordinatorLink | None = None
) -> dict[str, Any]:
    """Put new keys in place with an invitation, for a partner whose old ones were lost or stolen.

    Args:
        new_noise_key: after a theft of the folder: what was answered before cannot be protected any more, but what is
            answered from now on can. A question that comes again costs again, since its noise is another.
    Raises:
        ConfigError: the invitation is not for this.
        RunError, ProtocolError, UnreachableError, StorageError: as `rotate`.
    """
    _refuse_other_invitation(node, invitation)
    with _stopped(node):
        fresh = _next_keys(node, sha256(invitation.secret.encode()))
        link = link or CoordinatorLink(node)
        told = _asked(fresh, link, lambda: link.enrol(invitation.secret, fresh))
        if new_noise_key:
            with storage_errors(node.keys):
                replace_file(node.keys / "noise.key", os.urandom(32))
        _put_in_place(node)
    return told


def trust(node: Node, authority: str) -> None:
    """Pin another certificate authority, whose SHA-256 its owner has compared by another way.

    Raises: RunError: the node runs. ConfigError: another one answers. UnreachableError. StorageError.
    """
    address, authorities = node.settings.coordinator.address, node.authorities
    with _stopped(node):
        content = fetch_authority(address, authority)
        meet(address, content)
        authorities.accept([content.decode("ascii")], authorities.sequence())


def refuse_unfinished(node: Node) -> None:
    """Raises RunError: which keys count is not settled, so that nothing should be signed with either."""
    if (node.keys / _NEXT).exists():
        raise RunError("this node's keys are half changed", "flower-client rotate, or rekey with the same invitation")


@contextmanager
def _stopped(node: Node) -> Iterator[None]:
    """What runs has read the old keys, and would go on with them."""
    with only_one(node.state / "running.lock", "flower-client stop, then this again, then flower-client start"):
        yield


def _next_keys(node: Node, why: str, *, may_go_on_with_others: bool = False) -> Path:
    """Folder of the keys that are to count: those of an earlier try for the same reason, or new ones."""
    place = node.keys / _NEXT
    shutil.rmtree(node.keys / _SPENT, ignore_errors=True)
    if place.exists():
        if may_go_on_with_others or (place / _WHY).read_text() == why:
            return place
        with storage_errors(node.keys):
            shutil.rmtree(place)
    with new_folder(place) as fresh:
        SigningKey.create(fresh / "signing.key")
        replace_file(fresh / "node.key", make_node_key())
        replace_file(fresh / _WHY, why.encode())
    return place


def _asked(fresh: Path, link: CoordinatorLink, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The coordinator's yes. After a no the new keys go, but only if the old ones are sure to count still."""
    try:
        return ask()
    except ProtocolError as error:
        if _is_known(link):
            shutil.rmtree(fresh, ignore_errors=True)
            raise ProtocolError(error.problem, "the old keys stay and count; ask the coordinator") from error
        remedy = "check the clock and repeat; else ask the coordinator for `flower-server invite NAME --replace-keys`"
        raise ProtocolError(error.problem, remedy) from error


def _is_known(link: CoordinatorLink) -> bool:
    try:
        link.me()
    except FedrecError:
        return False
    return True


def _put_in_place(node: Node) -> None:
    """Until both keys are in place `keys/next` is there, whatever happens, and `start` refuses."""
    place = node.keys / _NEXT
    with storage_errors(node.keys):
        for name in _SECRETS:
            replace_file(node.keys / name, read_secret(place / name))
        place.rename(node.keys / _SPENT)
        sync_folder(node.keys)
        shutil.rmtree(node.keys / _SPENT, ignore_errors=True)


def _refuse_other_invitation(node: Node, invitation: Invitation) -> None:
    if invitation.kind != REPLACE_KEYS:
        remedy = "ask the coordinator for `flower-server invite NAME --replace-keys`"
        raise ConfigError("that invitation enrols a new partner, and replaces no keys", remedy)
    if invitation.name != node.settings.name:
        raise ConfigError(f"that invitation is for another partner than {node.settings.name!r}", "name its folder")
    if invitation.authority not in authority_fingerprints(node.authorities.read()):
        words = "that invitation names an authority that is not trusted here"
        raise ConfigError(
            words, "compare its fingerprint by another way, then flower-client trust --fingerprint SHA256"
        )
