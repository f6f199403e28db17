"""One suite over every database that the coordinator's state may lie in: SQLite always, PostgreSQL where installed."""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from fedrec.errors import ConfigError, ProtocolError, StorageError
from fedrec.signing import fingerprint
from fedrec_server.admin.figures import CommittedFigures, read_state
from fedrec_server.admin.readiness import try_to_write
from fedrec_server.rounds.driver import is_wished
from fedrec_server.state.key_book import KeyBook
from fedrec_server.state.partner_book import PartnerBook
from fedrec_server.state.round_book import RoundBook
from fedrec_server.state.store import Database, Office, printable_url
from fedrec_server.state.tables import METADATA

HOUR = timedelta(hours=1)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database.open(url)
    yield opened
    opened.close()


def enrol(book: PartnerBook, name: str) -> None:
    secret = book.invite(name, valid_for=HOUR, is_approved=False)
    book.enrol(name, secret, node_key=f"node {name}", signing_key=f"key {name}")


def test_what_was_written_is_there_after_a_restart(database: Database, url: str) -> None:
    enrol(PartnerBook(database), "shop")
    again = Database.open(url)
    assert PartnerBook(again).partner("shop") == PartnerBook(database).partner("shop")
    again.close()


def test_an_invitation_enrols_once(database: Database) -> None:
    book = PartnerBook(database)
    secret = book.invite("shop", valid_for=HOUR, is_approved=True)
    assert book.enrol("shop", secret, node_key="n", signing_key="k").status == "pending"
    assert book.is_preapproved("shop")
    assert book.enrol("shop", secret, node_key="n", signing_key="k").name == "shop"  # the answer was lost
    for keys in ({"node_key": "n2", "signing_key": "k2"}, {"node_key": "n", "signing_key": "k2"}):
        with pytest.raises(ProtocolError, match="not valid"):
            book.enrol("shop", secret, **keys)
    with pytest.raises(ConfigError, match="enrolled already"):
        book.invite("shop", valid_for=HOUR, is_approved=False)


@pytest.mark.parametrize("case", ["guessed", "another name", "expired", "replaced", "key taken"])
def test_an_invitation_that_is_not_valid_says_no_more_than_that(database: Database, case: str) -> None:
    book = PartnerBook(database)
    enrol(book, "music")
    valid_for = -HOUR if case == "expired" else HOUR
    secret = book.invite("shop", valid_for=valid_for, is_approved=True)
    if case == "replaced":
        book.invite("shop", valid_for=HOUR, is_approved=True)
    name = "video" if case == "another name" else "shop"
    node_key = "node music" if case == "key taken" else "n"
    with pytest.raises(ProtocolError) as found:
        book.enrol(name, "guess" if case == "guessed" else secret, node_key=node_key, signing_key="k")
    assert found.value.problem == "the invitation is not valid"
    assert [partner.name for partner in book.partners()] == ["music"]


def test_of_many_that_use_one_invitation_at_once_one_enrols(database: Database) -> None:
    book = PartnerBook(database)
    secret, won = book.invite("shop", valid_for=HOUR, is_approved=True), []

    def try_to(number: int) -> None:
        with contextlib.suppress(ProtocolError, StorageError):
            won.append(book.enrol("shop", secret, node_key=f"n{number}", signing_key=f"k{number}"))

    threads = [threading.Thread(target=try_to, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(book.partners()) == 1


def test_a_partner_that_was_removed_stays_out(database: Database) -> None:
    book = PartnerBook(database)
    enrol(book, "shop")
    assert book.set_status("shop", "approved", who="anna").status == "approved"
    book.give_node("shop", str(2**64 - 1))
    assert book.partners("approved")[0].node_id == str(2**64 - 1)
    book.set_status("shop", "removed", who="anna")
    with pytest.raises(ConfigError, match="was removed"):
        book.set_status("shop", "approved", who="anna")
    with pytest.raises(ConfigError, match="no partner"):
        book.partner("nobody")
    whats = [line["what"] for line in Office(database).audit()]
    assert whats == ["partner removed", "partner approved", "enrolled"]


def test_a_reason_is_cut_and_seen_does_not_wipe_it(database: Database) -> None:
    book = PartnerBook(database)
    enrol(book, "shop")
    book.see("shop", "x" * 999)
    book.see("shop")
    partner = book.partner("shop")
    assert (partner.reason, bool(partner.last_seen)) == ("x" * 300, True)


def test_a_wish_counts_until_a_round_began_after_it(database: Database) -> None:
    book, rounds = PartnerBook(database), RoundBook(database)
    enrol(book, "shop")
    assert not is_wished(book.partners(), "")
    book.wish("shop")
    assert is_wished(book.partners(), "")
    time.sleep(0.002)
    rounds.begin("run/1", 1, 1, "lm")
    began = rounds.latest(1)[0]["started_at"]
    assert not is_wished(book.partners(), began)
    time.sleep(0.002)
    book.wish("shop")  # while the round is under way: its data are not in it
    assert is_wished(book.partners(), began)


def test_a_round_began_with_its_first_attempt(database: Database) -> None:
    rounds = RoundBook(database)
    assert rounds.began("films/1", 1) == ""
    for run, attempt in (("films/1", 1), ("films/1", 2), ("films/2", 1)):
        rounds.begin(run, 1, attempt, "head")
        time.sleep(0.002)
    third, _, first = (one["started_at"] for one in rounds.latest())
    assert (rounds.began("films/1", 1), rounds.began("films/2", 1)) == (first, third)


def test_an_attempt_is_on_record_before_it_ends_and_its_number_is_not_used_again(database: Database) -> None:
    book = RoundBook(database)
    assert book.attempts("films/1", 1) == 0
    book.begin("films/1", 1, 1, "head")
    assert book.latest()[0]["status"] == "asked"
    book.end("films/1", 1, 1, status="failed", reasons={"shop": "late"})
    book.begin("films/1", 1, 2, "head")
    book.end("films/1", 1, 2, status="committed", partners=["shop"], bytes_up=2**40)
    assert book.attempts("films/1", 1) == book.attempts_of_round(1) == 2
    assert [(one["attempt"], one["status"]) for one in book.latest()] == [(2, "committed"), (1, "failed")]
    assert book.latest()[0]["bytes_up"] == 2**40
    with pytest.raises(StorageError):
        book.begin("films/1", 1, 2, "head")


def test_a_setting_outlives_and_is_noted(database: Database) -> None:
    office = Office(database)
    assert office.setting("paused", "no") == "no"
    office.set_setting("paused", "yes", who="anna")
    office.set_setting("paused", "no", who="bert")
    assert office.setting("paused") == "no"
    assert [(line["who"], line["detail"]) for line in office.audit(1)] == [("bert", {"value": "no"})]


def test_tables_of_a_newer_fedrec_are_refused(database: Database, url: str) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="newer fedrec"):
        Database.open(url)


def test_errors_name_no_values(database: Database) -> None:
    enrol(PartnerBook(database), "shop")
    with database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE partners RENAME TO gone")
    with pytest.raises(StorageError) as found:
        PartnerBook(database).see("shop", "private 4711")
    assert "4711" not in str(found.value)
    with database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO partners")


def test_an_address_is_printed_without_its_password() -> None:
    assert "s3cret" not in printable_url("postgresql+psycopg://anna:s3cret@host/name")


@pytest.mark.parametrize("url", ["nonsense", "oracle://x", "nosuch://x"])
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"state\.database"):
        Database.open(url)


def test_migrations_lead_to_the_tables_that_the_code_uses(database: Database) -> None:
    with database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_figures_for_monitoring_are_the_same_on_every_database(database: Database, tmp_path: Path) -> None:
    empty = read_state(database, tmp_path)
    assert (empty.attempts, empty.last, empty.bytes_up) == ({"asked": 0, "committed": 0, "failed": 0}, None, 0)
    enrol(PartnerBook(database), "shop")
    book = RoundBook(database)
    for number in (1, 2):
        book.begin("films/1", number, 1, "head")
        book.end("films/1", number, 1, status="committed", seconds=2.0, bytes_up=2**40, bytes_down=number)
    found = read_state(database, tmp_path)
    assert found.attempts == {"asked": 0, "committed": 2, "failed": 0}
    assert (found.bytes_up, found.bytes_down, found.last) == (2**41, 3, CommittedFigures(2.0, 2**40, 2))
    assert [(one.name, one.status, one.last_seen_s) for one in found.partners] == [("shop", "pending", None)]


def test_a_trial_of_writing_leaves_nothing_behind(database: Database) -> None:
    try_to_write(database)
    assert Office(database).setting("readiness", "nothing") == "nothing"


KEYS = {who: {"node_key": f"node {who}", "signing_key": who[0] * 64} for who in ("abc", "bcd", "cde")}


def approve(book: PartnerBook, name: str, keys: str, node: str = "7") -> None:
    book.enrol(name, book.invite(name, valid_for=HOUR, is_approved=False), **KEYS[keys])
    book.set_status(name, "approved", who="anna")
    assert book.give_node(name, node, node_key=KEYS[keys]["node_key"])


def rotate(keys: KeyBook, name: str, old: str, new: str) -> None:
    keys.rotate(name, old_key=KEYS[old]["signing_key"], **KEYS[new])


def test_keys_are_rotated_once_and_the_partner_stays_approved(database: Database) -> None:
    book, keys = PartnerBook(database), KeyBook(database)
    approve(book, "shop", "abc")
    for _ in range(2):  # the answer was lost
        rotate(keys, "shop", "abc", "bcd")
    partner = book.partner("shop")
    assert (partner.status, partner.signing_key, partner.node_id) == ("approved", "b" * 64, "")
    assert keys.retired_nodes() == ["7"]
    keys.forget_node("7")
    assert keys.retired_nodes() == []
    told = [line for line in Office(database).audit() if line["what"] == "keys rotated"]
    assert [line["who"] for line in told] == ["shop"]
    assert told[0]["detail"]["new"] == fingerprint(bytes.fromhex("b" * 64))


@pytest.mark.parametrize(
    "case", ["old key gone", "back to a retired one", "half new", "another's", "suspended", "nobody"]
)
def test_a_rotation_that_cannot_be_changes_nothing(database: Database, case: str) -> None:
    book, keys = PartnerBook(database), KeyBook(database)
    approve(book, "shop", "abc")
    rotate(keys, "shop", "abc", "bcd")
    approve(book, "music", "cde", "8")
    asked = {"name": "shop", "old_key": "b" * 64, "node_key": "node new", "signing_key": "f" * 64}
    changed = {
        "old key gone": {"old_key": "a" * 64},
        "back to a retired one": KEYS["abc"],
        "half new": {"node_key": "node bcd"},
        "another's": KEYS["cde"],
        "nobody": {"name": "nobody"},
    }
    if case == "suspended":
        book.set_status("shop", "suspended", who="anna")
    before = (book.partners(), keys.retired_nodes(), Office(database).audit())
    with pytest.raises(ProtocolError):
        keys.rotate(**{**asked, **changed.get(case, {})})
    assert (book.partners(), keys.retired_nodes(), Office(database).audit()) == before


def test_of_many_rotations_at_once_one_counts(database: Database) -> None:
    book, keys, won = PartnerBook(database), KeyBook(database), []
    approve(book, "shop", "abc")

    def try_to(number: int) -> None:
        with contextlib.suppress(ProtocolError, StorageError):
            keys.rotate("shop", old_key="a" * 64, node_key=f"n{number}", signing_key=f"{number}" * 64)
            won.append(f"n{number}")

    threads = [threading.Thread(target=try_to, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [book.partner("shop").node_key] == won


def test_keys_that_are_to_be_replaced_stop_counting_at_once(database: Database) -> None:
    book, keys = PartnerBook(database), KeyBook(database)
    approve(book, "shop", "abc")
    for _ in range(2):  # the first invitation was lost
        secret = book.invite("shop", valid_for=HOUR, is_approved=False, replaces_keys=True)
    assert (book.partner("shop").status, book.partner("shop").node_id) == ("keyless", "")
    assert keys.retired_nodes() == ["7"]
    with pytest.raises(ProtocolError, match="does not count any more"):
        rotate(keys, "shop", "abc", "bcd")
    with pytest.raises(ConfigError, match="no keys that count") as found:
        book.set_status("shop", "approved", who="anna")
    assert "--replace-keys" in found.value.remedy
    assert not book.give_node("shop", "9", node_key="node abc")
    with pytest.raises(ProtocolError, match="not valid"):
        book.enrol("shop", secret, **KEYS["abc"])
    for _ in range(2):  # the answer was lost
        assert book.enrol("shop", secret, **KEYS["bcd"]).status == "pending"
    partner = book.set_status("shop", "approved", who="anna")
    assert (partner.signing_key, partner.node_id) == ("b" * 64, "")
    with pytest.raises(ProtocolError, match="not valid"):
        book.enrol("shop", secret, **KEYS["cde"])
    whats = [line["what"] for line in Office(database).audit()]
    assert whats[:3] == ["partner approved", "keys replaced", "keys retired"]


def test_keys_that_were_taken_away_come_back_by_no_door(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    book = PartnerBook(database)
    first = book.invite("shop", valid_for=HOUR, is_approved=True)
    book.enrol("shop", first, **KEYS["abc"])
    stale = book.partner("shop")
    book.invite("shop", valid_for=HOUR, is_approved=False, replaces_keys=True)
    with pytest.raises(ProtocolError, match="not valid"):
        book.enrol("shop", first, **KEYS["abc"])
    with monkeypatch.context() as patch:  # somebody approves at the same moment
        patch.setattr(book, "partner", lambda name: stale)
        with pytest.raises(ConfigError, match="at the same moment"):
            book.set_status("shop", "approved", who="anna")
    assert book.partner("shop").status == "keyless"


def test_a_partner_without_keys_can_still_be_removed_and_a_removed_one_gets_none(database: Database) -> None:
    book = PartnerBook(database)
    approve(book, "shop", "abc")
    secret = book.invite("shop", valid_for=HOUR, is_approved=False, replaces_keys=True)
    book.set_status("shop", "removed", who="anna")
    with pytest.raises(ProtocolError, match="not valid"):
        book.enrol("shop", secret, **KEYS["bcd"])
    for name, words in (("shop", "was removed"), ("nobody", "no partner 'nobody'")):
        with pytest.raises(ConfigError, match=words):
            book.invite(name, valid_for=HOUR, is_approved=False, replaces_keys=True)
    with pytest.raises(ProtocolError, match="not valid"):
        book.enrol("music", book.invite("music", valid_for=HOUR, is_approved=False), **KEYS["abc"])


def test_a_node_whose_keys_were_changed_while_it_was_registered_is_not_noted(database: Database) -> None:
    book, keys = PartnerBook(database), KeyBook(database)
    approve(book, "shop", "abc", "")
    rotate(keys, "shop", "abc", "bcd")
    assert not book.give_node("shop", "9", node_key="node abc")
    assert book.partner("shop").node_id == ""
    assert book.give_node("shop", "9", node_key="node bcd")


def test_invitations_of_the_first_tables_still_enrol(url: str) -> None:
    """An upgrade between invitation and enrolment must cost nobody a new word."""
    database = Database.open(url)
    secret = PartnerBook(database).invite("shop", valid_for=HOUR, is_approved=False)
    with database.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "fedrec_server.state:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    database.close()
    again = Database.open(url)
    assert PartnerBook(again).enrol("shop", secret, **KEYS["abc"]).status == "pending"
    again.close()
