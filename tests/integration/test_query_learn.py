"""`fedrec query learn` on a made shop: made requests, three partners under masks, and the run reads otherwise."""

import json
from pathlib import Path

import pytest

from fedrec.config import load_config
from fedrec.errors import ConfigError, PrivacyError
from fedrec.query.learning import LearningPlan
from fedrec.query.query_model import make_query_model
from fedrec.query.request_rows import read_requests
from fedrec_sim.queries import learning
from fedrec_sim.queries.learn_run import learn_run
from fedrec_sim.queries.reading import corrected, query_source
from fedrec_sim.run import start_run
from fedrec_sim.world import load_world


def test_partners_correct_the_reader_of_their_run_and_each_pays(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_MADE", 20)
    world = load_world(load_config(config_file, ("private.delta=1e-3",)))
    run = start_run(tmp_path / "tiny", world.config, "fedrec simulate")
    plan = LearningPlan(first_requests=64, head_steps=20, steps=1, batch=4)
    model = make_query_model(query_source(world), plan, lambda *_: None)
    text, file = "a weepie", tmp_path / "requests.jsonl"
    rows = [
        {
            "user": f"u{number % 12}",
            "request": text,
            "item": world.catalog.ids[4 * (number % 9) + 1],
            "timestamp": number,
        }
        for number in range(60)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    read, done = read_requests(file, world.catalog), list[tuple[int, int]]()
    before = model.understand(text).weights
    for epsilon in (None, 8.0):  # the second moves the first aside
        found = learn_run(run, world, model, read, epsilon, "fedrec query learn", lambda *of: done.append(of))
        statement = json.loads((run.folder / "requests/correction/privacy.json").read_text())
        assert (found["users"], found["requests"], found["partners"]) == (12, 60, 3)
        assert statement["mode"] == ("none" if epsilon is None else "secagg")
        assert "texts of requests" in statement["reads"]
        assert (corrected(model, run.folder).understand(text).weights != before).any()
    assert statement["epsilon"] == pytest.approx(8.0, abs=0.05)
    assert "texts of all requests" in statement["covers"]
    assert (run.folder / "requests/ledger.pool").is_file()
    assert (run.folder / "requests.1/learnt.json").is_file()
    assert "texts of requests" in (run.folder / "requests/correction/PRIVACY.md").read_text()
    assert done[-1] == (1, 1)
    assert (model.understand(text).weights == before).all()
    with pytest.raises((PrivacyError, ConfigError)):
        learn_run(run, world, model, read, 0.0, "fedrec query learn", lambda *_: None)
    assert (corrected(model, run.folder).understand(text).weights != before).any()  # what was there stays
