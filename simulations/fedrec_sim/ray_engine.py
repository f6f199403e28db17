"""The same ServerApp and ClientApp through Flower's Ray engine: partners answer in Ray's actors, on all cores.

Each actor is a process that loads the world once, from the run's folder, and makes its partners' workers when they are
asked. The coordinator stays in this process.
"""

import json
import secrets
import threading
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import (
    HEARTBEAT_INTERVAL_INF,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    PARTITION_ID_KEY,
    SUPERLINK_NODE_ID,
)
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.fleet.vce.vce_api import start_vce
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run as FlowerRun
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from fedrec.errors import ConfigError
from fedrec.rows import Mode
from fedrec_client.app import app as client_app
from fedrec_client.link import register_all
from fedrec_server.app import RoundSession, make_server_app
from fedrec_sim.partners import Partners
from fedrec_sim.run import read_run

# Flower looks for answers some times a second, so that more than the actors' number must be on their way.
_IN_FLIGHT = 128
_RUN_ID, _TASK_ID = 1, 1
_BACKEND = {
    "init_args": {"include_dashboard": False, "logging_level": "error", "log_to_driver": False},
    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    "actor": {"tensorflow": 0},
}


def run_on_ray(session: RoundSession, partners: Partners) -> None:
    """Run the session's rounds with partners in Ray's actors, one for each core.

    Raises: ConfigError: ray is not installed. Whatever `run_rounds` raises.
    """
    if find_spec("ray") is None:
        raise ConfigError('engine = "ray" needs Ray', "pip install 'fedrec[ray]', or take engine = \"inline\"")
    if partners.config.private.noise_source == "secret":
        partners.run.noise_root()  # made once, before several actors want it
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    run = _registered_run(factory)
    nodes = _registered_nodes(factory, len(session.partners))
    names = dict(zip(nodes, partners.names, strict=True))
    app = ActorApp(str(partners.run.folder), partners.label.rpartition("-")[0], partners.seed, session.mode)
    ended, failure = threading.Event(), list[BaseException]()

    def serve() -> None:
        try:
            start_vce(
                "ray",
                json.dumps(_BACKEND),
                str(partners.run.folder),
                False,
                ended,
                run,
                VceMetrics(),
                client_app=app,
                state_factory=factory,
                existing_nodes_mapping=nodes,
            )
        except BaseException as error:  # noqa: BLE001  # told in the thread that waits
            failure.append(error)

    engine = threading.Thread(target=serve)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, SUPERLINK_NODE_ID, _TASK_ID
    grid = InMemoryGrid(state_factory=factory)
    grid.set_run(run)
    engine.start()
    try:
        mine = replace(session, partners=names, in_flight=_IN_FLIGHT, stop=lambda: bool(failure) or session.stop())
        context = Context(run_id=_RUN_ID, node_id=SUPERLINK_NODE_ID, node_config={}, state=RecordDict(), run_config={})
        make_server_app(mine)(grid, context)
        session.result = mine.result
    finally:
        ended.set()
        engine.join()
    if failure:
        raise failure[0]


def _registered_run(factory: LinkStateFactory) -> FlowerRun:
    """Flower's record of a run, as its own simulation begins one."""
    run = FlowerRun.create_empty(_RUN_ID)
    run.primary_task_id, run.federation_id = _TASK_ID, NOOP_FEDERATION_ID
    state = cast(InMemoryLinkState, factory.state())
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[_TASK_ID] = Task(task_id=_TASK_ID, run_id=run.run_id)
    return run


def _registered_nodes(factory: LinkStateFactory, count: int) -> dict[int, int]:
    """Flower's node ids -> partition numbers, from 0."""
    state, nodes = factory.state(), dict[int, int]()
    for number in range(count):
        key = secrets.token_bytes(32)
        node = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
        state.acknowledge_node_heartbeat(node_id=node, heartbeat_interval=HEARTBEAT_INTERVAL_INF)
        nodes[node] = number
    return nodes


@dataclass(frozen=True)
class _Key:
    folder: str
    row: str
    seed: int
    mode: Mode


class ActorApp(ClientApp):
    """The unmodified ClientApp, told which worker of this actor it speaks for.

    Args:
        folder: of the run, from which an actor loads everything; nothing else travels to it but messages.
    """

    def __init__(self, folder: str, row: str, seed: int, mode: Mode) -> None:
        super().__init__()
        self.key = _Key(folder, row, seed, mode)

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer for one partner. Flower numbers the partitions as we number the partners."""
        partners = _partners_here(self.key)
        name = partners.names[int(context.node_config[PARTITION_ID_KEY])]
        context.node_config = {**context.node_config, "worker": f"{partners.place}/{name}"}
        return client_app(message, context)


_here: dict[_Key, Partners] = {}


def _partners_here(key: _Key) -> Partners:
    """This actor's partners, made at its first message."""
    if key not in _here:
        from fedrec_sim.federation import partners_of
        from fedrec_sim.world import load_world

        run = read_run(Path(key.folder))
        world = load_world(run.config)
        made = partners_of(world, world.corpus(key.seed), run, row=key.row, seed=key.seed, mode=key.mode)
        register_all(made.place, made.find)
        _here[key] = made
    return _here[key]
