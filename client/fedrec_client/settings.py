"""A partner's folder and its `client.toml`."""

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedrec.errors import ConfigError
from fedrec.files import make_folders, replace_file, storage_errors
from fedrec.invitation import REPLACE_KEYS, Invitation
from fedrec.signing import SigningKey
from fedrec.toml import Section, read_toml
from fedrec_client.authority import Authorities
from fedrec_client.node_key import make_node_key, public_part

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Epsilon = Annotated[float, Field(gt=0, le=100)]
_ENROLLED = "enrolled"
_DATA, _LEDGER = "data", "ledger.sqlite"
# A file of the state folder, while rounds are refused.
PAUSED = "paused"
# Likewise: held by the service, or by whoever changes its store without it.
SERVING_LOCK = "serving.lock"
Port = Annotated[int, Field(ge=1, le=65535)]


class CoordinatorSettings(Section):
    """`[coordinator]`: the one that is listened to."""

    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+:\d{1,5}$")]
    authority: Sha256
    key: Sha256


class PolicySettings(Section):
    """`[policy]`: what may be asked for."""

    modes: tuple[Literal["none", "inspect", "secagg"], ...] = ("inspect",)
    epsilon_total: Epsilon = 8.0
    epsilon_round: Epsilon = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    min_users: Annotated[int, Field(ge=1)] = 100
    hours: Annotated[str, Field(pattern=r"^([01]\d|2[0-4]):[0-5]\d-([01]\d|2[0-4]):[0-5]\d$")] = "00:00-24:00"
    backbones: tuple[Sha256, ...] = ()
    accept_new_keys: bool = True
    min_dishonest: Annotated[int, Field(ge=0)] = 1


class MachineSettings(Section):
    """`[model]`: where the model runs."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    threads: Annotated[int, Field(ge=0, le=4096)] = 0


class LocalSettings(Section):
    """`[local]`: of this machine."""

    supernode_port: Port = 9094
    adapter_every_s: Annotated[float, Field(ge=0.5)] = 10.0
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    serve: bool = False
    rows_of: str = ""


class RehearsalSettings(Section):
    """`[rehearsal]`: for `fedrec rehearse`."""

    power: Annotated[int, Field(ge=-1, le=20)] = -1
    garbage: bool = False


class ClientSettings(Section):
    """All of `client.toml`."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    coordinator: CoordinatorSettings
    policy: PolicySettings = PolicySettings()
    model: MachineSettings = MachineSettings()
    local: LocalSettings = LocalSettings()
    rehearsal: RehearsalSettings = RehearsalSettings()


@dataclass(frozen=True)
class Node:
    """A partner's folder.

    Attributes:
        folder: made by `flower-client init`; its owner alone may read it.
    """

    folder: Path

    @cached_property
    def settings(self) -> ClientSettings:
        """Raises ConfigError: no such folder, or `client.toml` is wrong."""
        return read_toml(
            self.folder / "client.toml", ClientSettings, "run `flower-client init`; every key stands there"
        )

    @property
    def keys(self) -> Path:
        """The partner's own keys, and the coordinator's CA certificate."""
        return self.folder / "keys"

    @cached_property
    def owner(self) -> "Node":
        """The node whose rows and ledger these are: this one, or the one that `local.rows_of` names.

        Rows that two federations learn from have one ledger, so that both count. Raises ConfigError: no such node, or
        this folder has rows or a ledger too, which would be forgotten.
        """
        if not (named := self.settings.local.rows_of):
            return self
        if (self.folder / _DATA).exists() or (self.state / _LEDGER).exists():
            raise ConfigError(
                f"{self.folder}: has rows or a ledger of its own, and local.rows_of names another node's",
                "empty local.rows_of, or share rows from a new folder; of the same rows, what this ledger has spent "
                'comes on top: docs/operations.md, "What two ledgers spent of the same rows"',
            )
        other = Node(self.folder / named)
        if other.settings.local.rows_of:
            raise ConfigError(f"{named}: has its rows from another node", "let local.rows_of name the one that imports")
        return other

    @property
    def data(self) -> Path:
        """Imported rows. Private."""
        return self.owner.folder / _DATA

    @property
    def run(self) -> Path:
        """Sockets and secrets of what runs."""
        return self.folder / "run"

    @property
    def state(self) -> Path:
        """Ledger, agreed terms, rounds seen."""
        return self.folder / "state"

    @property
    def ledger(self) -> Path:
        """What the data have paid; made when rows were first imported."""
        return self.owner.state / _LEDGER

    @property
    def serving(self) -> Path:
        """`serving.toml` and the event store of the partner's service. Private."""
        return self.folder / "serving"

    @property
    def logs(self) -> Path:
        """Of every process."""
        return self.folder / "logs"

    @property
    def authorities(self) -> Authorities:
        """Certificate authorities of the coordinator that are trusted."""
        accepted = self.state / "coordinator-authorities.json"
        return Authorities(accepted, self.keys / "ca.pem", self.settings.coordinator.authority)

    def signing_key(self) -> SigningKey:
        """Raises ConfigError: missing or readable by others."""
        return SigningKey.load(self.keys / "signing.key")


def make_node(
    folder: Path,
    invitation: Invitation,
    authority: bytes,
    port: int,
    metrics_port: int = 0,
    node_key: bytes | None = None,
) -> Node:
    """Write configuration and keys into a new folder; the keys never leave it. One that never enrolled is gone on with.

    Args:
        authority: the coordinator's CA certificate, whose fingerprint has been compared with the invitation's.
        port, metrics_port: of SuperNode and metrics, on the loopback; no metrics at port 0.
        node_key: the partner's own, in OpenSSH's form; one is made otherwise. Secret.
    Raises:
        ConfigError: the folder is a node's already, or has another key; or the invitation replaces keys.
        StorageError.
    """
    if invitation.kind == REPLACE_KEYS:  # a new folder would begin with a new ledger
        raise ConfigError(
            "that invitation replaces a partner's keys", "flower-client rekey, in the partner's own folder"
        )
    if (folder / "client.toml").exists():
        node = Node(folder)
        whose = (node.settings.name, node.settings.coordinator.key)
        if whose == (invitation.name, invitation.coordinator) and not (node.state / _ENROLLED).exists():
            if node_key and public_part(node_key) != public_part((node.keys / "node.key").read_bytes()):
                raise ConfigError(f"{folder}: an earlier try enrolled another node key", "name a new folder")
            return node  # the answer to an earlier try was lost
        raise ConfigError(f"{folder}: is a partner's folder already", "name a new one")
    text = (files("fedrec_client") / "client.toml").read_text(encoding="utf-8")
    told = {"ADDRESS": invitation.address, "AUTHORITY": invitation.authority, '"KEY"': f'"{invitation.coordinator}"'}
    told |= {"SUPERNODE_PORT": str(port), "METRICS_PORT": str(metrics_port), '"NAME"': f'"{invitation.name}"'}
    for word, value in told.items():
        text = text.replace(word, value)
    node = Node(folder)
    with storage_errors(folder):
        for part in (folder, node.keys, node.state, node.run, node.logs):
            make_folders(part)
            part.chmod(0o700)
        replace_file(node.keys / "ca.pem", authority)
        SigningKey.create(node.keys / "signing.key")
        replace_file(node.keys / "node.key", node_key or make_node_key())
        replace_file(node.keys / "noise.key", os.urandom(32))
        replace_file(node.run / "worker.secret", os.urandom(32))
        replace_file(node.run / "executor.secret", os.urandom(32))
        replace_file(folder / "client.toml", text.encode())
    return node


def unmake_node(node: Node) -> None:
    """Remove the folder of a node that was refused; nothing but keys that nobody knows is in it."""
    if not (node.state / _ENROLLED).exists():
        shutil.rmtree(node.folder, ignore_errors=True)


def mark_enrolled(node: Node) -> None:
    """From now on the folder is that of a partner."""
    (node.state / _ENROLLED).touch(mode=0o600)
