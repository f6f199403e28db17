"""A node at a glance, for its own people: nothing of it leaves the machine."""

from typing import Any

from fedrec.errors import FedrecError, ProtocolError
from fedrec.processes import holder_of
from fedrec_client.adapters import describe
from fedrec_client.agreement import Agreement
from fedrec_client.coordinator_keys import CoordinatorKeys, describe_key
from fedrec_client.desk import SeenRounds
from fedrec_client.node import adapters_of
from fedrec_client.settings import Node
from fedrec_client.socket_link import SocketDesk


def glance(node: Node) -> dict[str, Any]:
    """What runs, the latest round, the adapter, the last refusal."""
    generation, number, attempt = SeenRounds(node.state / "rounds.json").latest()
    place = {"generation": generation, "round": number, "attempt": attempt}
    told: dict[str, Any] = {"partner": node.settings.name, **place}
    told["coordinator_key"] = describe_key(CoordinatorKeys(node))
    told["running"] = holder_of(node.state / "running.lock") is not None
    try:
        told["adapter"] = describe(adapters_of(node, Agreement.read(node)).held())
    except FedrecError:
        told["adapter"] = {"round": None}
    try:
        told["worker"] = SocketDesk(node.run).status()
    except ProtocolError:
        told["worker"] = None
    return told
