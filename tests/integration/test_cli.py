"""The `fedrec` command as a person uses it, on made data."""

import json
from pathlib import Path

import pytest

from fedrec_sim import cli


@pytest.fixture(scope="module")
def runs(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-runs")
    call(["simulate", "--config", str(config_file), "--runs", str(folder), "--json"])
    return folder


def call(arguments: list[str]) -> int:
    """Exit code of a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedrec", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0)


def test_recommend_to_a_user_gives_unseen_titles(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["recommend", "--run", "tiny", "--user", "u07", "-k", "10", "--runs", str(runs), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    items = answer["items"]
    assert len({item["item"] for item in items}) == 10
    assert [i["score"] for i in items] == sorted((i["score"] for i in items), reverse=True)
    assert answer["adapter"]["version"] == "round-0006"
    assert all(item["title"] and item["reason"] for item in items)


def test_recommend_to_someone_new(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titles = ["--history", "Quiet 0 (1960)", "--history", "love 3 (1963)"]
    assert call(["recommend", "--run", "tiny", *titles, "-k", "3", "--runs", str(runs), "--json"]) == 0
    offered = {item["title"] for item in json.loads(capsys.readouterr().out)["items"]}
    assert len(offered) == 3
    assert not offered & {"Quiet 0 (1960)", "Love 3 (1963)"}


def test_evaluate_gives_the_figures_of_the_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["evaluate", "--run", "tiny", "--protocol", "B", "--runs", str(runs), "--json"]) == 0
    means = json.loads(capsys.readouterr().out)["means"]
    summary = json.loads((runs / "tiny/summary.json").read_text(encoding="utf-8"))
    assert means["ndcg@10"] == pytest.approx(summary["rows"]["federated_dp"]["ndcg@10"])


def test_runs_are_listed_and_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["runs", "list", "--runs", str(runs), "--json"]) == 0
    assert [run["name"] for run in json.loads(capsys.readouterr().out)] == ["tiny"]
    assert call(["runs", "show", "tiny", "--runs", str(runs)]) == 0
    assert "federated" in capsys.readouterr().out
    assert call(["runs", "show", "tiny", "--runs", str(runs), "--markdown"]) == 0
    assert "| federated_dp |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["recommend", "--run", "tiny"], 2, "either --user or --history"),
        (["recommend", "--run", "tiny", "--user", "nobody"], 3, "no such user"),
        (["recommend", "--run", "tiny", "--history", "Quiet 0", "--history", "xyz"], 3, "2 problems"),
        (["recommend", "--run", "tiny", "--user", "u07", "-k", "999"], 3, "unseen"),
        (["evaluate", "--run", "tiny", "--protocol", "A"], 2, "protocol A"),
        (["evaluate", "--run", "no-such-run"], 9, "no run there"),
        (["simulate"], 2, "--config or --resume"),
        (["simulate", "--resume", "no-such-run"], 9, "no run there"),
        (["data", "fetch", "no-such-data"], 2, "known: ml-100k"),
    ],
)
def test_wrong_input_is_named_with_a_remedy(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    folder = [] if arguments[0] == "data" else ["--runs", str(runs)]
    assert call([*arguments, *folder]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "remedy" in error
    assert "Traceback" not in error


def test_all_wrong_keys_are_told_at_once(config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--set", "private.epsilon=-1", "--set", "no_such_key=1", "--set", "rounds.quorum=0", "--set", "seeds=[-1]"]
    assert call(["simulate", "--config", str(config_file), "--runs", str(tmp_path), *wrong]) == 2
    error = capsys.readouterr().err
    assert all(key in error for key in ("private.epsilon", "no_such_key", "rounds.quorum", "seeds"))
    assert not list(tmp_path.iterdir())


def test_import_stores_all_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "items.csv").write_text("sku,name\na,Apple tart\nb,Bread\n", encoding="utf-8")
    rows = "customer,sku,at\nx,a,2024-01-02\nx,b,2024-01-03\ny,a,1700000000\n"
    (tmp_path / "good.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "bad.csv").write_text(rows + "z,unknown,2024-01-01\nz,a,yesterday\n", encoding="utf-8")
    options = ["--catalog", str(tmp_path / "items.csv"), "--user", "customer", "--item", "sku", "--timestamp", "at"]
    options += ["--item-id", "sku", "--title", "name"]
    assert call(["data", "import", str(tmp_path / "bad.csv"), *options, "--to", str(tmp_path / "shop")]) == 3
    error = capsys.readouterr().err
    assert "line 5" in error
    assert "line 6" in error
    assert "yesterday" not in error
    assert not (tmp_path / "shop").exists()
    assert call(["data", "import", str(tmp_path / "good.csv"), *options, "--to", str(tmp_path / "shop"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["interactions"] == 3
    assert call(["data", "describe", str(tmp_path / "shop"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["users"] == 2


def test_a_run_that_cannot_begin_leaves_the_earlier_one_alone(
    runs: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (runs / "tiny/summary.json").read_bytes()
    command = ["simulate", "--config", str(config_file), "--runs", str(runs), "--set", "model.backbone=no-such-model"]
    assert call(command) == 5
    assert "no-such-model" in capsys.readouterr().err
    assert (runs / "tiny/summary.json").read_bytes() == before
    assert not (runs / "tiny.1").exists()


def test_what_auto_means_is_settled_once_a_run(config_file: Path, tmp_path: Path) -> None:
    wanted = [
        "--set",
        "model.device=auto",
        "--set",
        "model.dtype=auto",
        "--set",
        "model.threads=0",
        "--set",
        'rows=["popularity"]',
    ]
    assert call(["simulate", "--config", str(config_file), "--runs", str(tmp_path), "--json", *wanted]) == 0
    model = json.loads((tmp_path / "tiny/run.json").read_text(encoding="utf-8"))["config"]["model"]
    assert model["device"] in ("cpu", "cuda", "mps")
    assert model["dtype"] in ("float32", "bfloat16")
    assert model["threads"] >= 1


def test_a_summary_of_another_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text('{"format": 0}', encoding="utf-8")
    assert call(["runs", "show", "old", "--runs", str(tmp_path), "--json"]) == 9
    assert "format 0" in capsys.readouterr().err


def test_one_column_may_be_id_and_title(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item\nApple tart\nBread\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("user,item,timestamp\nx,Bread,1\nx,Apple tart,2\n", encoding="utf-8")
    catalog = ["--catalog", str(tmp_path / "items.csv"), "--item-id", "item", "--title", "item"]
    assert call(["data", "import", str(tmp_path / "rows.csv"), *catalog, "--to", str(tmp_path / "shop")]) == 0
