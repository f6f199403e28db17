"""`fedrec query learn` on a made shop: made requests, three partners under masks, and the run reads otherwise."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from fedrec.config import load_config
from fedrec.errors import ConfigError, DataError, ModelError, PrivacyError
from fedrec.query.learning import LearningPlan
from fedrec.query.query_model import QueryModel, make_query_model
from fedrec.query.request_rows import RequestRows, read_requests
from fedrec_client.serving.settings import default_settings
from fedrec_sim.cli_query import explain, train
from fedrec_sim.queries import learning
from fedrec_sim.queries.learn_run import learn_run
from fedrec_sim.queries.reading import Asking, corrected, correction_of, private_correction, promised, query_source
from fedrec_sim.run import Json, Run, start_run
from fedrec_sim.serve_run import serve_run, served_run, served_statement
from fedrec_sim.world import World, load_world

TEXT = "a weepie"


@dataclass(frozen=True)
class Asked:
    """A made shop with a taught reader, and requests of twelve users."""

    run: Run
    world: World
    model: QueryModel
    rows: RequestRows

    def learn(self, epsilon: float | None, told: list[tuple[int, int]] | None = None) -> Json:
        tell = [] if told is None else told
        return learn_run(
            self.run, self.world, self.model, self.rows, epsilon, "fedrec query learn", lambda *of: tell.append(of)
        )


def served(folder: Path) -> None:
    serve_run(folder, None, with_events=False, say=lambda _: None)


@pytest.fixture
def asked(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(learning, "_MADE", 20)
    world = load_world(load_config(config_file, ("private.delta=1e-3",)))
    run = start_run(tmp_path / "tiny", world.config, "fedrec simulate")
    plan = LearningPlan(first_requests=64, head_steps=20, steps=1, batch=4)
    model = make_query_model(query_source(world), plan, lambda *_: None)
    file, items = tmp_path / "requests.jsonl", world.catalog.ids
    rows = [
        {"user": f"u{number % 12}", "request": TEXT, "item": items[4 * (number % 9) + 1], "timestamp": number}
        for number in range(60)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return Asked(run, world, model, read_requests(file, world.catalog))


def test_partners_correct_the_reader_of_their_run_and_each_pays(asked: Asked) -> None:
    run, model, done = asked.run, asked.model, list[tuple[int, int]]()
    before = model.understand(TEXT).weights
    for epsilon in (None, 8.0):  # the second moves the first aside
        found = asked.learn(epsilon, done)
        statement = json.loads((run.folder / "requests/correction/privacy.json").read_text())
        assert (found["users"], found["requests"], found["partners"]) == (12, 60, 3)
        assert statement["mode"] == ("none" if epsilon is None else "secagg")
        assert "texts of requests" in statement["reads"]
        assert (corrected(model, run.folder).understand(TEXT).weights != before).any()
        if epsilon is None:
            assert "protects nobody" in promised(run.folder)["together"]
            for refused in (lambda: served_run(run, asked.world, default_settings()), lambda: served(run.folder)):
                with pytest.raises(ModelError, match=r"learnt from without privacy(?s:.*)--epsilon"):
                    refused()
    assert statement["epsilon"] == pytest.approx(8.0, abs=0.05)
    assert "texts of all requests" in statement["covers"]
    assert (run.folder / "requests/ledger.pool").is_file()
    assert (run.folder / "requests.1/learnt.json").is_file()
    page = (run.folder / "requests/correction/PRIVACY.md").read_text()
    added = "each call has ledgers of its own, and for the same people the epsilons of calls and adapter add up"
    assert any(added in line for line in statement["does_not_cover"])
    assert added in page
    assert "texts of requests" in page
    assert "in this call of `fedrec query learn` alone" in page
    assert "and all others" not in page
    assert done[-1] == (1, 1)
    assert (model.understand(TEXT).weights == before).all()
    with pytest.raises((PrivacyError, ConfigError)):
        asked.learn(0.0)
    assert (corrected(model, run.folder).understand(TEXT).weights != before).any()  # what was there stays


def test_what_taught_the_reader_is_named_with_its_epsilon_wherever_it_reads(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = asked.run
    assert promised(run.folder) == {}
    asked.learn(8.0)
    (run.folder / "adapter").mkdir()
    adapter = {"mode": "secagg", "epsilon": 2.5, "delta": 1e-5}
    (run.folder / "adapter/privacy.json").write_text(json.dumps(adapter))
    correction = private_correction(run.folder)
    assert correction is not None
    assert (correction.mode, correction.epsilon) == ("secagg", pytest.approx(8.0, abs=0.05))
    assert served_statement(run.folder, correction) == {**adapter, "correction": asdict(correction)}
    assert served_statement(run.folder, None) == adapter
    monkeypatch.setattr("fedrec_sim.queries.reading.load_query_model", lambda *_: asked.model)
    explain(TEXT, "tiny", run.folder.parent, as_json=True)
    for told in (Asking.of(asked.world, run.folder, TEXT).told, json.loads(capsys.readouterr().out)):
        assert told["correction"] == asdict(correction)
        assert told["adapter"] == adapter
        assert "add up" in told["together"]


def test_a_reader_taught_anew_is_said_to_leave_corrections_behind(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedrec_sim.queries.reading.query_model_of", lambda *_, **__: asked.model)
    for again in (False, True):
        train("tiny", again=again, folder=asked.run.folder.parent, as_json=True)
        told = " ".join(capsys.readouterr().err.split())
        assert ("learn them anew with `fedrec query learn`" in told) == again


def test_what_a_call_that_was_cut_short_had_paid_is_kept(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    run = asked.run

    def cut_short(*given: object, **named: object) -> object:
        learning.learn(*given, **named)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr("fedrec_sim.queries.learn_run.learn", cut_short)
    with pytest.raises(KeyboardInterrupt):
        asked.learn(8.0)
    paid = (run.folder / ".requests.new/ledger.pool").read_bytes()
    assert correction_of(run.folder) is None
    monkeypatch.setattr("fedrec_sim.queries.learn_run.learn", learning.learn)
    asked.learn(8.0)
    assert (run.folder / "requests.1/ledger.pool").read_bytes() == paid
    assert not (run.folder / "requests.1/learnt.json").exists()
    assert (run.folder / "requests/learnt.json").is_file()
    assert not (run.folder / ".requests.new").exists()


def test_what_was_learnt_but_not_put_in_its_place_is_neither_passed_over_nor_lost(asked: Asked) -> None:
    run, commands = asked.run, []
    asked.learn(None)
    learnt = (run.folder / "requests/learnt.json").read_text()
    for before in (False, True):  # an earlier one was moved aside already, or stands there still
        (run.folder / "requests").rename(run.folder / ".requests.new")
        if before:
            (run.folder / "requests").mkdir()
        else:
            with pytest.raises(ModelError, match="rename it to requests"):
                corrected(asked.model, run.folder)
        asked.learn(None)
        commands += [place for place in run.folder.glob("requests.*") if (place / "learnt.json").is_file()]
    assert {(place / "learnt.json").read_text() for place in commands} == {learnt}
    assert sorted(place.name for place in commands) == ["requests.1", "requests.1", "requests.3"]


def test_too_few_users_and_requests_that_say_nothing_are_refused_before_anything_is_read(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("minutes of reading")

    monkeypatch.setattr(learning.PublicGround, "of", refuse)
    two = replace(asked.rows, users=tuple(f"u{number % 2}" for number in range(60)))
    with pytest.raises(ConfigError, match="partners = 3, but there are 2 users"):
        replace(asked, rows=two).learn(8.0)
    with pytest.raises(DataError, match="no request says anything"):
        replace(asked, rows=replace(asked.rows, texts=("no war films",) * 60)).learn(8.0)
    assert not (asked.run.folder / ".requests.new").exists()
