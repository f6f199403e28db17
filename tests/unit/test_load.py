"""Partners of a load answer as real ones do, and what is counted of them is what there was."""

import os
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedrec.aggregation.mean import check_reply
from fedrec.data.catalog import ItemCatalog, write_catalog
from fedrec.errors import ProtocolError, RunError
from fedrec.signing import SigningKey, verify
from fedrec.wire import QUESTION, RoundPlan
from fedrec_server.rounds.federation import Federation
from fedrec_server.rounds.records import question, read_answer
from fedrec_sim.load.fleet import Traffic
from fedrec_sim.load.network import Load
from fedrec_sim.load.partner import LoadPartner
from fedrec_sim.load.processes import children_of, taken
from fedrec_sim.rehearsal.federations import sums_federation

COORDINATOR, OWN = SigningKey(bytes(32)), SigningKey(bytes([1] * 32))


@pytest.fixture
def federation(catalog: ItemCatalog, tmp_path: Path) -> Federation:
    write_catalog(catalog, tmp_path / "catalog.parquet")
    return sums_federation(tmp_path / "catalog.parquet", rounds=2, quorum=1, numbers=10)


def asked(federation: Federation, signature: str = "") -> tuple[RoundPlan, Message]:
    terms, parent = federation.terms, federation.initial.hash
    plan = RoundPlan("sums/1", 1, 1, "head", 1, 1, 1.0, parent, terms.plan_hash, "inspect", 1, 60.0, 1)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    record = question(plan, federation.initial, signature or COORDINATOR.sign("round-plan", plan.to_record()))
    return plan, Message(RecordDict({QUESTION: record}), 7, "train")


def partner(federation: Federation, place: int) -> LoadPartner:
    key = ec.generate_private_key(ec.SECP384R1())
    return LoadPartner(f"load-{place}", place, federation.terms, COORDINATOR.public, key, OWN)


def test_an_answer_is_signed_passes_every_check_and_shows_whose_it_is(federation: Federation) -> None:
    plan, message = asked(federation)
    answer = partner(federation, 3).answer(message)
    header, adapter_delta, signature = read_answer(answer.content, federation.terms.spec.part("head"))
    verify(OWN.public, "answer", header.to_record(), signature)
    names = frozenset({"load-3"})
    ways = {"plan": plan, "spec": federation.terms.spec, "max_norm": 2.0, "cohort": names, "answered": {}}
    check_reply(header, adapter_delta, sender="load-3", **ways)  # type: ignore[arg-type]
    assert np.flatnonzero(adapter_delta.tensors["w"]).tolist() == [3]


def test_a_plan_that_the_coordinator_did_not_sign_is_not_answered(federation: Federation) -> None:
    with pytest.raises(ProtocolError, match="signature"):
        partner(federation, 0).answer(asked(federation, signature="AAAA")[1])
    _, message = asked(federation)
    record = message.content[QUESTION]
    assert isinstance(record, ConfigRecord)
    record["round"] = 2
    with pytest.raises(ProtocolError):
        partner(federation, 0).answer(message)


def test_traffic_tells_what_was_added() -> None:
    traffic = Traffic(up=1, down=2)
    traffic.calls["get-run"] += 1
    before = traffic.copy()
    traffic.up += 5
    traffic.calls["get-run"] += 2
    traffic.failures["get-run: 503"] += 1
    since = traffic.since(before)
    assert (since.up, since.down, since.calls, since.failures) == (5, 0, {"get-run": 2}, {"get-run: 503": 1})


def test_what_a_process_takes_grows() -> None:
    before = taken(os.getpid())
    kept = np.ones(5_000_000)
    for _ in range(50):
        kept = np.sqrt(kept)
    after = taken(os.getpid())
    assert after.cpu_s > before.cpu_s
    assert after.peak_rss_bytes >= before.peak_rss_bytes > 1 << 20


def test_a_process_that_is_no_coordinator_is_told_from_one() -> None:
    with pytest.raises(RunError, match="admin, driver, gateway, superlink"):
        children_of(os.getpid())


def test_more_partners_than_numbers_could_not_be_told_apart() -> None:
    with pytest.raises(RunError, match="10 numbers for 11 partners"):
        Load(partners=11, rounds=1, numbers=10, idle_s=0.0)
