"""Many partners: few workers live at once, pooled ledgers, drawn cohorts, Ray; all end in the bits of a plain run."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fedrec.config import load_config
from fedrec.data import generator
from fedrec.data.catalog import read_stored_catalog, write_catalog
from fedrec.data.interactions import read_stored_interactions
from fedrec.errors import ConfigError, LedgerError, PrivacyError
from fedrec.privacy.ledger_chain import Budget
from fedrec.registry.registry import Registry
from fedrec_client.worker import Worker
from fedrec_sim import partners as partners_module
from fedrec_sim.federation import Federation, federate
from fedrec_sim.ladder import run_ladder
from fedrec_sim.leaderboard import leaderboard
from fedrec_sim.live import ladder_table
from fedrec_sim.pooled_ledgers import LedgerPool, PooledLedger
from fedrec_sim.run import start_run
from fedrec_sim.world import load_world

MANY = ("partners=20", "rounds.quorum=15")


def made(config_file: Path, folder: Path, *overrides: str, **more: Any) -> tuple[Federation, list[dict[str, Any]]]:
    """A private row that is set up, in a run of its own."""
    events: list[dict[str, Any]] = []
    run = start_run(folder, load_config(config_file, overrides), "fedrec test")
    world = load_world(run.config)
    more = {"row": "federated_dp", "seed": 1, "mode": "secagg", "stop": lambda: False} | more
    return federate(world, world.corpus(1), run, on_event=events.append, **more), events


@pytest.fixture(scope="module")
def whole(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hash of the adapter that 20 partners end in, all workers kept."""
    federation, _ = made(config_file, tmp_path_factory.mktemp("whole") / "run", *MANY)
    return federation.run().hash


@pytest.mark.parametrize("kept", [1, 3])
def test_few_workers_live_at_once_and_the_bits_stay(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str, kept: int
) -> None:
    """Counted by their births and deaths: with one kept, another may be under way when it is dropped."""
    alive, most, born = set[int](), 0, 0
    vets = list[bool]()

    class Counted(Worker):
        def __post_init__(self) -> None:
            nonlocal most, born
            super().__post_init__()
            alive.add(id(self))
            vets.append(self.is_vetted)
            most, born = max(most, len(alive)), born + 1

        def __del__(self) -> None:
            alive.discard(id(self))

    monkeypatch.setattr(partners_module, "Worker", Counted)
    monkeypatch.setattr(partners_module, "KEPT_WORKERS", kept)
    federation, events = made(config_file, tmp_path / "run", *MANY, 'private.ledger="pooled"')
    assert federation.run().hash == whole
    assert born == 20 * len(federation.schedule)
    assert most <= kept + 1
    assert not alive
    assert vets == [False] + [True] * (born - 1), "the shared model is looked at once"
    assert not [event for event in events if event["event"] == "partner_refused"]


def test_a_lost_partner_is_still_named(config_file: Path, tmp_path: Path) -> None:
    def fail(node: int) -> None:
        if node in (3, 7):
            raise RuntimeError("a private detail")

    federation, events = made(config_file, tmp_path / "run", *MANY, before_answer=fail)
    federation.run()
    refused = {event["partner"] for event in events if event["event"] == "partner_refused"}
    assert refused == {"partner-02", "partner-06"}
    committed = [event for event in events if event["event"] == "round_committed"]
    assert {len(event["partners"]) for event in committed} == {18}


def test_a_fixed_number_of_partners_is_drawn_by_seed_and_round(config_file: Path, tmp_path: Path) -> None:
    some = ("partners=20", "rounds.partners_per_round=5", "rounds.quorum=4", 'private.ledger="pooled"')
    ends = list[str]()
    for number in (1, 2):
        federation, events = made(config_file, tmp_path / str(number), *some)
        ends.append(federation.run().hash)
        asked = [event["partners"] for event in events if event["event"] == "round_committed"]
        assert {len(names) for names in asked} == {5}
        assert len({tuple(names) for names in asked}) > 1, "another draw each round"
        assert [sorted(federation.session.cohort(n).values()) for n in range(1, len(asked) + 1)] == asked
    assert len(set(ends)) == 1


def test_pooled_ledgers_hold_what_each_partner_paid_and_refuse_what_a_ledger_refuses(
    config_file: Path, tmp_path: Path
) -> None:
    federation, _ = made(config_file, tmp_path / "run", *MANY, 'private.ledger="pooled"')
    federation.run()
    pool = LedgerPool(tmp_path / "run/ledger/federated_dp-1.pool")
    assert pool.path.stat().st_mode & 0o777 == 0o600
    dataset = f"{federation.config.data.source}/federated_dp-1"
    for name in ("partner-01", "partner-20"):
        report = PooledLedger(pool, partner=name, dataset=dataset).verify()
        assert (report.partner, report.budget) == (name, Budget(8.0, 1e-4))
        assert report.spent == pytest.approx(federation.statement["epsilon"], abs=1e-6)
        assert not report.unreleased
    pool._db.execute("UPDATE records SET note = 'x' WHERE partner = 'partner-01' AND seq = 4")
    with pytest.raises(LedgerError, match="row 4"):
        PooledLedger(pool, partner="partner-01", dataset=dataset).chain()
    pool._db.execute("DELETE FROM records WHERE partner = 'partner-02'")
    with pytest.raises(LedgerError, match="missing"):
        PooledLedger(pool, partner="partner-02", dataset=dataset).enrol(8.0, 1e-4, begun=True)
    pool.close()


def test_every_figure_with_generated_users_says_so(config_file: Path, shop: Path, tmp_path: Path) -> None:
    catalog = read_stored_catalog(shop / "catalog.parquet")
    crowd = generator.fit(read_stored_interactions(shop / "interactions.parquet", catalog), catalog, source="a shop")
    write_catalog(catalog, tmp_path / "made/catalog.parquet")
    generator.write_generated(crowd, tmp_path / "made/interactions.parquet", catalog, users=40, seed=5)
    config = load_config(config_file, (f"data.source={tmp_path / 'made'}", 'rows=["popularity"]'))
    run = start_run(tmp_path / "run", config, "fedrec test")
    summary = run_ladder(run, load_world(config), lambda _: None, lambda: False)
    words = "generated users, fitted to a shop, seed 5"
    assert summary["data"]["generated"] == words
    assert f"made ({words})" in leaderboard(summary)
    assert words in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert words in str(ladder_table(summary).title)


def test_a_delta_of_one_over_the_users_is_refused(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match=r"delta 0.02 is not below one over the 60 users"):
        made(config_file, tmp_path / "run", "private.delta=0.02")


def test_the_partners_own_data_are_refused_as_public_data(config_file: Path, shop: Path, tmp_path: Path) -> None:
    """Its item vectors would be a release without noise; a copy under another name is no other data."""
    for folder in (shop, shutil.copytree(shop, tmp_path / "copy")):
        with pytest.raises(PrivacyError, match="partners' own data"):
            load_world(load_config(config_file, (f"model.public_data={folder}",)))


def test_fewer_users_are_drawn_from_among_more_and_the_figures_say_so(config_file: Path, tmp_path: Path) -> None:
    drawn = {}
    for users in (12, 20):
        world = load_world(load_config(config_file, (f"data.users={users}", 'rows=["popularity"]')))
        drawn[users] = {split.user for split in world.corpus(1).splits}
        assert len(drawn[users]) == users
        assert {split.user for split in world.corpus(2).splits} != drawn[users]
    assert drawn[12] < drawn[20]
    summary = run_ladder(start_run(tmp_path / "run", world.config, "fedrec test"), world, lambda _: None, lambda: False)
    assert summary["data"]["users"] == 20
    assert summary["data"]["interactions"] == sum(len(sequence.items) for sequence in world.sequences(1))
    assert summary["data"]["interactions"] < world.table.n_rows
    assert "20 of its users, drawn by the seed" in leaderboard(summary)
    with pytest.raises(ConfigError, match=r"data\.users is 61, the data have 60"):
        load_world(load_config(config_file, ("data.users=61",))).corpus(1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("rounds.partners_per_round=4",), "partners_per_round 4 exceeds partners 3"),
        (("rounds.partners_per_round=1",), "quorum 2 exceeds rounds.partners_per_round 1"),
        (('engine="ray"', "jobs=2"), "jobs must be 1"),
        (('data.source="generated"',), "data.users must say how many"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config_file: Path, overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(config_file, overrides)


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'fedrec[ray]'")
@pytest.mark.filterwarnings("ignore")
def test_rays_actors_end_in_the_same_bits(config_file: Path, tmp_path: Path, whole: str) -> None:
    federation, events = made(config_file, tmp_path / "run", *MANY, 'engine="ray"', 'private.ledger="pooled"')
    assert federation.run().hash == whole
    assert not [event for event in events if event["event"] == "partner_refused"]
    assert Registry(tmp_path / "run/registry/federated_dp-1").verify() == 7
