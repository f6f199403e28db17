"""A search of a federated row: free on made data, charged on private ones, and the same after a stop."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedrec.privacy.accounting import epsilon_pld
from fedrec.privacy.ledger import PrivacyLedger
from fedrec_sim import cli
from fedrec_sim.search import trials as search_trials
from fedrec_sim.search.settings import load_search

pytest.importorskip("optuna")
ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--set", "model.public_data=none", "--set", "private.shape.public_dim=0", "--set", "rounds.masks=false"]
# Three rounds, since a trial's length tells nothing here.
_PARTS = (
    '{part="prior", rounds=1, share=0.3, l2_clip_norm=1.0, optimizer="sgd", server_learning_rate=1.0}',
    '{part="head", rounds=2, share=0.7, l2_clip_norm=0.2, optimizer="adam", server_learning_rate=0.03}',
)
SHORT += ["--set", "evaluation.watch_users=10", "--set", f"private.parts=[{', '.join(_PARTS)}]"]
KEYS = """
[[search.keys]]
key = "private.parts.head.server_learning_rate"
low = 0.001
high = 0.3
log = true
[[search.keys]]
key = "private.shape.score_dim"
choices = [2, 4]
"""
ROUNDS = """
[[search.keys]]
key = "private.parts.head.rounds"
low = 1
high = 4
"""
PRIVATE = ["--set", "private.noise_source=secret", "--set", "private.epsilon=2"]


def call(*words: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedrec", "tune", "federated", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0)


def search_file(folder: Path, settings: str, keys: str = KEYS) -> Path:
    path = folder / "search.toml"
    path.write_text(f"format = 1\n[search]\n{settings}\n{keys}", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def free(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a search of 4 trials that was stopped within its second, and what it found."""
    root = tmp_path_factory.mktemp("free")
    space = search_file(root, "data_is_public = true")
    original, calls = search_trials.federation_of, []

    def stopping(context: Any, *more: Any) -> Any:
        calls.append(context)
        if len(calls) == 2:
            noted = context.on_event

            def note(event: dict[str, Any]) -> None:
                noted(event)
                if event["event"] == "round_committed" and event["round"] == 2:
                    raise KeyboardInterrupt

            context.on_event = note
        return original(context, *more)

    words = ["--config", config_file, "--search", space, "--trials", "4", "--runs", root, *SHORT, "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_trials, "federation_of", stopping)
        call(*words)
        assert len(calls) == 2
        assert call("--resume", "tiny", "--trials", "4", "--runs", root, "--json") == 0
    folder = root / "search/tiny"
    return folder, json.loads((folder / "search.json").read_text(encoding="utf-8"))


def test_a_search_finds_the_best_of_its_trials(free: tuple[Path, dict[str, Any]]) -> None:
    folder, found = free
    finished = [one for one in found["trials"] if one["state"] == "complete"]
    assert len(found["trials"]) == 4
    assert {one["state"] for one in found["trials"]} <= {"complete", "pruned"}
    assert found["best"]["value"] == max(one["value"] for one in finished)
    assert all(0.001 <= one["values"]["private.parts.head.server_learning_rate"] <= 0.3 for one in found["trials"])
    assert found["privacy"] == {
        "is_charged": False,
        "why_free": "declared to be public (data_is_public)",
        "trial_epsilon": 8.0,
    }
    page = (folder / "search.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert f"{found['best']['value']:.4f}" in page


def test_a_trial_that_was_stopped_goes_on_and_the_others_are_those_it_would_have_been(
    free: tuple[Path, dict[str, Any]], config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = search_file(tmp_path, "data_is_public = true")
    words = ["--config", config_file, "--search", space, "--trials", "3", "--runs", tmp_path, *SHORT, "--json"]
    assert call(*words) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["trials"] == free[1]["trials"][:3]


def test_on_private_data_every_trial_and_look_is_paid_for(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = search_file(tmp_path, "budget_epsilon = 4.0\nvalidation_noise = 3.0")
    words = ["--config", config_file, "--search", space, "--runs", tmp_path, *SHORT, *PRIVATE, "--json"]
    assert call(*words, "--trials", "9") == 7  # refused before a row is read
    refusal = capsys.readouterr().err
    fits = re.search(r"at most (\d+) trials fit", refusal)
    assert fits is not None
    assert not (tmp_path / "search/tiny").exists()
    assert call(*words, "--trials", "2") == 0
    privacy = json.loads(capsys.readouterr().out)["privacy"]
    assert privacy["is_charged"]
    assert privacy["trial_epsilon"] < 2 < privacy["total_epsilon"] <= 4
    ledgers = sorted((tmp_path / "search/tiny/ledger").glob("*.sqlite"))
    assert len(ledgers) == 3
    for path in ledgers:
        ledger = PrivacyLedger(path)
        charges = [charge.total() for charge in ledger.chain().charges]
        looks = [charge for charge in charges if charge[0] == "validation"]
        assert sum(steps for *_, steps in looks) == 2
        assert all(noise == 3.0 for _, _, noise, _ in looks)
        assert sum(steps for part, *_, steps in charges if part == "head") == 4
        assert ledger.spent()[0] == pytest.approx(epsilon_pld(charges, privacy["delta"]))
        assert ledger.spent()[0] == pytest.approx(privacy["total_epsilon"], abs=1e-6)
        assert not ledger.verify().unreleased


def test_a_trial_below_the_others_is_pruned(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import optuna

    # Below what anything can reach, in place of the median of five others.
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: optuna.pruners.ThresholdPruner(lower=2.0))
    space = search_file(tmp_path, "data_is_public = true")
    assert call("--config", config_file, "--search", space, "--trials", "1", "--runs", tmp_path, *SHORT) == 9
    error = capsys.readouterr().err
    assert "pruned after" in error
    assert "no trial was finished" in error


@pytest.mark.parametrize(
    ("settings", "keys", "more", "words"),
    [
        ("", KEYS, [], "search.budget_epsilon"),
        ("budget_epsilon = 5.0", KEYS, [], "private.noise_source"),
        ("data_is_public = true", KEYS.replace("score_dim", "score_dims"), [], "no such key"),
        ("data_is_public = true", KEYS.replace("0.3", "3000.0"), [], "server_learning_rate"),
        ("data_is_public = true", KEYS.replace("private.shape.score_dim", "private.epsilon"), [], "may not vary it"),
        ('data_is_public = true\nrow = "federated"', KEYS, [], "trained by plain alone"),
        ('data_is_public = true\nrow = "federated_dp_inspect"', KEYS, [], "[[private.tuned]] sets it"),
        ("data_is_public = true\nepochs = 3", KEYS, [], "search.epochs"),
        ("budget_epsilon = 5.0", KEYS + ROUNDS, PRIVATE, "decides what a trial costs"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_runs(
    config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: str,
    keys: str,
    more: list[str],
    words: str,
) -> None:
    space = search_file(tmp_path, settings, keys)
    assert call("--config", config_file, "--search", space, "--runs", tmp_path, *SHORT, *more) == 2
    error = capsys.readouterr().err
    assert words in re.sub(r"\s+", " ", error)
    assert "remedy" in error
    assert not (tmp_path / "search/tiny").exists()


def test_the_shipped_search_fits_the_demo() -> None:
    from fedrec.config import load_config
    from fedrec_sim.search.settings import refuse_unfit

    config = load_config(ROOT / "simulations/configs/demo.toml")
    refuse_unfit(config, load_search(ROOT / "simulations/searches/federated.toml"), is_charged=True)
