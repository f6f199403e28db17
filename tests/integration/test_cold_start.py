"""`fedrec cold-start` on made data: every row is trained without what it is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedrec.config import load_config
from fedrec.model.recommender import adapter_parameters, read_state
from fedrec.recommend.recommender import ModelRecommender
from fedrec_sim import cli
from fedrec_sim.cold_start import with_new_items, without_items
from fedrec_sim.world import load_world


def call(*arguments: str) -> int:
    """Exit code of a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedrec", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0)


ROWS = ["popularity", "item_knn", "federated", "federated_dp"]


def test_every_row_is_asked_and_a_cold_start_goes_on(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--set", f"cold_start.rows={json.dumps(ROWS)}", "--set", "cold_start.shots=[1, 2]")
    settings += ("--set", "cold_start.items_share=0.2", "--runs", str(tmp_path), "--json")
    assert call("cold-start", "--config", str(config_file), *settings) == 0
    found = json.loads(capsys.readouterr().out)
    folder = tmp_path / "cold-start/tiny"
    assert found == json.loads((folder / "cold_start.json").read_text(encoding="utf-8"))
    assert list(found["new_items"]) == list(found["new_users"]) == ["chance", "genre_popularity", *ROWS]
    for asked in found["new_items"].values():
        assert set(asked) == {"known_items", "new_items", "among_new_items"}
        assert asked["new_items"]["users"] == asked["among_new_items"]["users"] != [0]
    # Who knows no new item ranks those last; who ranks at random among them is as good as chance.
    for row in ("popularity", "item_knn"):
        assert found["new_items"][row]["new_items"]["hr@10"] == 0
        assert found["new_items"][row]["among_new_items"] == found["new_items"]["chance"]["among_new_items"]
    assert found["new_items"]["federated"]["among_new_items"] != found["new_items"]["chance"]["among_new_items"]
    for asked in found["new_users"].values():
        for whole in ("known_users", "new_users"):
            share = asked["new_users@2"][f"share_of_{whole}_ndcg@10"]
            assert share == pytest.approx(asked["new_users@2"]["ndcg@10"] / asked[whole]["ndcg@10"])

    for piece in ("new_items-federated-1", "new_users-federated_dp-1"):
        (folder / f"rows/{piece}.json").unlink()
    assert call("cold-start", "--resume", "tiny", "--runs", str(tmp_path), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert {name: again[name] for name in ("new_items", "new_users")} == {
        name: found[name] for name in ("new_items", "new_users")
    }
    assert call("cold-start", "--resume", "tiny", "--runs", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("among new items", "the last 2", "genre_popularity"))

    page = tmp_path / "page"
    page.mkdir()
    assert call("runs", "publish", "cold-start/tiny", "--runs", str(tmp_path), "--to", str(page)) == 0
    written = json.loads((page / "cold-start.json").read_text(encoding="utf-8"))
    assert written["new_items"] == again["new_items"]
    assert written["command"].startswith(f"fedrec cold-start --config {config_file} --set")
    assert "--runs" not in written["command"]
    section = (page / "LEADERBOARD.md").read_text(encoding="utf-8")
    hits = again["new_items"]["federated"]["new_items"]["hr@10"]
    assert all(
        words in section
        for words in (
            "## cold-start",
            f"| federated | {written['new_items']['federated']['known_items']['hr@10']:.4f} | {hits:.4f} |",
            "new, the last 2",
        )
    )


def test_new_items_join_a_trained_adapter(config_file: Path) -> None:
    world = load_world(load_config(config_file))
    known = np.setdiff1d(np.arange(len(world.catalog)), [0, 7, 8])
    model = without_items(world, known).model(world.config.plain.shape, seed=1)
    for parameter in adapter_parameters(model).values():
        parameter.data += 0.1
    history = np.array([3, 20, 5], np.int32)
    before = ModelRecommender(model, 20).score([history])[0]
    trained = read_state(model)
    whole = with_new_items(world, model, known, seed=1)
    after = ModelRecommender(whole, 20).score([known[history].astype(np.int32)])[0]
    shift = after[known] - before  # the popularity prior is normalised over more items
    np.testing.assert_allclose(shift, shift[0], atol=1e-4)
    assert np.ptp(before) > 0.1
    assert np.isfinite(after).all()
    grown = {n for n, v in read_state(whole).tensors.items() if v.shape != trained.tensors[n].shape}
    assert len(grown) == 2  # per-item vectors and the prior
    assert all((read_state(whole).tensors[name][known] == trained.tensors[name]).all() for name in grown)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--config or --resume"),
        (("--resume", "tiny", "--set", "seeds=[1]"), "changes nothing"),
        (("--config", "FILE", "--set", "evaluation.protocol=A"), "evaluation.protocol is A"),
        (("--config", "FILE", "--set", 'cold_start.rows=["local_only"]'), "new users have no partner"),
    ],
)
def test_wrong_input_is_named_with_a_remedy(
    arguments: tuple[str, ...], words: str, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(config_file) if argument == "FILE" else argument for argument in arguments]
    assert call("cold-start", *named, "--runs", str(tmp_path)) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
