"""The rows that others invented, run and tuned on made data through the same doors as the rest."""

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.config import BaselinesConfig, FedMFConfig, PFedRecConfig, SASRecConfig, load_config
from fedrec.data.splits import EvaluationSplit
from fedrec.errors import ConfigError
from fedrec_sim import tune
from fedrec_sim.baseline_rows import TRAINED_ROWS, Bench, fit_floor
from fedrec_sim.cli import app
from fedrec_sim.rows import RowContext, run_row
from fedrec_sim.run import Run
from fedrec_sim.world import World, load_world

QUICK = {"epochs": 4, "every": 2, "patience": 1}
SETTINGS = BaselinesConfig(
    sasrec=SASRecConfig(hidden=8, max_history=10, batch_users=16, **QUICK),
    fedmf=FedMFConfig(factors=4, **QUICK),
    pfedrec=PFedRecConfig(factors=4, **QUICK),
)


@pytest.fixture(scope="module", name="world")
def small_world(config_file: Path) -> World:
    config = load_config(config_file)
    return load_world(config.model_copy(update={"baselines": SETTINGS}))


@pytest.mark.parametrize("row", ["popularity", "ials", "bpr", *TRAINED_ROWS])
def test_a_row_reports_test_validation_and_what_was_chosen(row: str, world: World, tmp_path: Path) -> None:
    told: list[dict[str, object]] = []
    run = Run(tmp_path, world.config, "test", "now", "commit")
    context = RowContext(world, world.corpus(1), run, row, 1, told.append, lambda: False)  # type: ignore[arg-type]
    result = run_row(context)
    assert result["test"]["users"] == result["validation"]["users"] > 0
    assert 0 <= result["test"]["ndcg@10"] <= result["test"]["hr@10"] <= 1
    assert result["epsilon"] is None
    assert bool(result["chosen_on_validation"]) == (row != "popularity")
    rounds = result["chosen_on_validation"].get("round")
    assert (rounds is not None) == (row in ("fedmf", "pfedrec"))
    if rounds is not None:
        assert rounds <= result["rounds"] <= 4
        assert result["bytes_up_per_partner"] == result["rounds"] * 4 * 4 * len(world.catalog)
    json.dumps(result)
    assert row == "popularity" or any(event["event"] == "row_progress" for event in told)


@pytest.mark.parametrize("row", ["ials", "bpr", *TRAINED_ROWS])
def test_the_test_items_do_not_reach_a_row(row: str, world: World) -> None:
    splits = [split for split in world.corpus(1).splits if len(split.test)]
    other = [EvaluationSplit(s.user, s.train, s.validation, (s.test + 1) % len(world.catalog)) for s in splits]
    fitted = [fit_floor(row, SETTINGS, Bench(of, len(world.catalog), seed=1)) for of in (splits, other)]  # type: ignore[arg-type]
    histories = [split.history("test") for split in splits]
    np.testing.assert_array_equal(*(floor.scorer.score(histories) for floor in fitted))
    assert fitted[0].chosen == fitted[1].chosen


def test_tuning_writes_what_was_tried_and_chooses_the_best(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_START", MappingProxyType({"fedmf": SETTINGS.fedmf}))
    monkeypatch.setattr(tune, "_CHANGES", MappingProxyType({"fedmf": ({"factors": 2}, {"local_steps": 1})}))
    out = tmp_path / "tuned"
    command = ["tune", "fedmf", "--config", str(config_file), "--seed", "3", "--out", str(out), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "fedmf.json").read_text())
    assert json.loads(result.stdout) == found
    assert (found["row"], found["seed"], found["protocol"], found["which"]) == ("fedmf", 3, "B", "validation")
    assert [tried["change"] for tried in found["candidates"]] == [{}, {"factors": 2}, {"local_steps": 1}]
    best = max(found["candidates"], key=lambda tried: tried["validation"]["ndcg@10"])
    assert found["chosen"] == best["settings"]
    again = CliRunner().invoke(app, command[:-1])
    assert again.exit_code == 0
    assert "NDCG@10" in again.output
    repeated = json.loads((out / "fedmf.json").read_text())
    first, second = ([tried["validation"] for tried in of["candidates"]] for of in (found, repeated))
    assert first == second


def test_the_command_line_names_every_row_that_can_be_tuned() -> None:
    for row in TRAINED_ROWS:
        assert row in CliRunner().invoke(app, ["tune", "--help"]).output
    assert CliRunner().invoke(app, ["tune", "ease", "--config", "x.toml"]).exit_code == 2


def test_wrong_settings_are_refused_all_at_once(config_file: Path) -> None:
    wrong = ("baselines.sasrec.dropout=1.0", "baselines.fedmf.negatives=0", "baselines.pfedrec.speed=9")
    with pytest.raises(ConfigError) as refused:
        load_config(config_file, (*wrong, "baselines.sasrec.heads=65"))
    for named in ("baselines.sasrec.dropout", "fedmf.negatives", "pfedrec.speed", "sasrec.heads"):
        assert named in str(refused.value)


@pytest.mark.parametrize("row", TRAINED_ROWS)
def test_every_change_that_tuning_tries_is_a_setting(row: str) -> None:
    changes = tune._CHANGES[row]  # the grid itself; to run it takes an hour
    assert changes
    start = tune._START[row]
    for change in changes:
        assert type(start).model_validate({**start.model_dump(), **change}) != start
