"""What partners' requests teach: rows, the loss and its bound, the correction of the public reader and its file."""

import json
import tomllib
from dataclasses import dataclass, replace
from errno import ENOSPC
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from fedrec.data.catalog import ItemCatalog
from fedrec.data.sequences import UserSequence
from fedrec.data.splits import leave_one_out
from fedrec.errors import DataError, ModelError, PrivacyError, StorageError
from fedrec.model.adapter import AdapterState
from fedrec.privacy.noise import NoiseSource
from fedrec.query.correction import Correction, CorrectionPromise, RequestInputs, load_correction, save_correction
from fedrec.query.learning import LearningPlan
from fedrec.query.made import training_vocabulary
from fedrec.query.query_model import QueryModel, QuerySource, make_query_model
from fedrec.query.request_rows import RequestRows, read_requests
from fedrec.query.taken import TakenItem
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import PART, HeadShape, TaskHead, head_state, write_head
from fedrec.tasks.training import PrivateWork, private_step, refuse_private_head
from fedrec_sim.queries.learning import PublicGround, PublicTaking, learn, terms_of
from fedrec_sim.queries.reading import corrected, correction_folder
from fedrec_sim.queries.user_requests import as_lines, user_requests
from fedrec_sim.tasks.rounds import TaskPromise

PROMISED = {"mode": "secagg", "epsilon": 8.0, "delta": 1e-4}
WORK = PrivateWork(1.0, l2_clip_norm=0.2, noise_std=1e-9, learning_rate=1.0, most_rows=8, batch_users=4)


@pytest.fixture(scope="module")
def model(tiny_llama: Path, catalog: ItemCatalog) -> QueryModel:
    plan = LearningPlan(first_requests=64, head_steps=20, steps=1, batch=4)
    return make_query_model(QuerySource(catalog, tiny_llama, None, 2), plan, lambda *_: None)


def inputs_of(model: QueryModel) -> RequestInputs:
    return model.inputs(8, 50)


def test_the_loss_is_that_of_the_taken_item_beside_what_everybody_takes() -> None:
    rng = np.random.default_rng(0)
    has, prior = rng.integers(0, 2, (7, 3)).astype(np.float32), rng.standard_normal(7).astype(np.float32)
    task, scores, taken = TakenItem(has, prior), rng.standard_normal((2, 4, 3)), rng.integers(0, 7, (2, 4))
    losses = task.losses(torch.from_numpy(scores).float(), torch.from_numpy(taken).float())
    for user in range(2):
        for row in range(4):
            powers = [np.exp(scores[user, row] @ has[item] + prior[item]) for item in range(7)]
            wanted = -np.log(powers[taken[user, row]] / sum(powers))
            assert float(losses[user, row]) == pytest.approx(wanted, rel=1e-5)
    flat = task.predictions(scores[0])
    assert task.figures(taken[0].astype(np.float32), flat, taken[0])["log_loss"] == pytest.approx(
        float(losses[0].mean()), rel=1e-5
    )


def test_one_user_more_moves_a_step_by_no_more_than_the_clip_norm_whatever_they_typed(
    model: QueryModel, catalog: ItemCatalog
) -> None:
    inputs, rng = inputs_of(model), np.random.default_rng(1)
    public = PublicTaking(np.zeros(len(catalog), np.float32), None)
    terms = terms_of(inputs, model, catalog, public)
    users = np.repeat(np.arange(5), [3, 1, 8, 2, 6])
    rows = rng.standard_normal((len(users), inputs.width))
    rows[users == 4] *= 1e5
    everybody = TaskExamples.of(rows, rng.integers(0, len(catalog), len(users)), users)
    moves = []
    for kept in (range(5), range(4)):
        head = TaskHead(terms.shape)
        write_head(head, terms.initial)
        refuse_private_head(head, terms.task)
        private_step(head, terms.task, everybody.of_users(list(kept)), WORK, NoiseSource.from_root(bytes(32), b"a"))
        state = head_state(head).minus(terms.initial).tensors
        moves.append(np.concatenate([tensor.ravel() for tensor in state.values()]))
    assert 0.5 * WORK.l2_clip_norm < np.linalg.norm(moves[0] - moves[1]) <= WORK.l2_clip_norm * 1.001


@dataclass(frozen=True, eq=False)
class BatchPrior(TakenItem):
    """A mutant: what is taken whatever was asked comes from the batch, and with it from other users."""

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        return super().losses(scores, targets) - scores.mean()


def test_a_loss_that_reads_other_users_is_refused_and_without_the_clip_norm_the_bound_is_broken() -> None:
    has, rng = np.eye(3, dtype=np.float32), np.random.default_rng(0)
    head = TaskHead(HeadShape(4, 3))
    with pytest.raises(PrivacyError, match="another user"):
        refuse_private_head(head, BatchPrior(has, np.zeros(3, np.float32)))
    examples = TaskExamples.of(1e3 * rng.standard_normal((2, 4)), np.array([0, 2]), np.array([0, 1]))
    unbounded, before = replace(WORK, l2_clip_norm=1e9), head_state(head)
    private_step(
        head, TakenItem(has, np.zeros(3, np.float32)), examples, unbounded, NoiseSource.from_root(bytes(32), b"a")
    )
    assert head_state(head).minus(before).l2_norm > 10 * 2 * WORK.l2_clip_norm


def test_an_untrained_correction_says_what_the_reader_says_and_a_trained_one_moves_categories_alone(
    model: QueryModel, catalog: ItemCatalog
) -> None:
    inputs = inputs_of(model)
    _, first = inputs.untrained()
    text = "a quiet comedy from the 1970s, no war"
    same = model.corrected_by(Correction.of(inputs, first)).understand(text)
    np.testing.assert_allclose(same.weights, model.understand(text).weights, atol=1e-4)
    weight = first.tensors[f"{PART}.outer.weight"].copy()
    weight[:, inputs.n_categories :] += 1.0
    moved = Correction.of(inputs, AdapterState({**first.tensors, f"{PART}.outer.weight": weight}))
    readings, weights = model.readings([("a quiet comedy",)])
    change = moved.corrected(readings, weights) - weights
    assert np.abs(change[:, : inputs.n_categories]).min() > 1e-3
    assert not change[:, inputs.n_categories :].any()
    assert (model.corrected_by(moved).understand(text).weights != same.weights).any()
    refusal, years = "anything but war, nothing with horror", slice(inputs.n_categories, None)
    assert model.corrected_by(moved).understand(refusal).unwanted == model.understand(refusal).unwanted
    assert np.array_equal(model.corrected_by(moved).understand(text).weights[years], same.weights[years])
    np.testing.assert_allclose(model.corrected_by(None).understand(text).weights, same.weights, atol=1e-4)


def test_where_public_requests_differ_a_correction_is_held_back_and_elsewhere_it_stands(model: QueryModel) -> None:
    inputs, rng = inputs_of(model), np.random.default_rng(3)
    readings, weights = model.readings([("a funny film",), ("a war story",)])
    held = inputs.held_back_by(readings, weights, 1e6)
    known = inputs.of_requests(readings, weights)[:, inputs.n_categories :]
    words = rng.standard_normal((inputs.n_categories, known.shape[1])).astype(np.float32)
    _, first = inputs.untrained()
    weight = np.concatenate([first.tensors[f"{PART}.outer.weight"][:, : inputs.n_categories], words], 1)
    state = AdapterState({**first.tensors, f"{PART}.outer.weight": weight})
    moves = [Correction.of(inputs, state, by).corrected(readings, weights) - weights for by in (None, held)]
    assert np.abs(moves[1]).max() < 0.01 * np.abs(moves[0]).max()
    new = np.linalg.svd(known)[2][-1]  # at right angles to both
    np.testing.assert_allclose(held @ new, new, atol=1e-3)


def test_users_words_are_learnt_at_epsilon_8_too(model: QueryModel, catalog: ItemCatalog) -> None:
    """Four directions, one a category, in which the reader sees nothing."""
    inputs, rng = inputs_of(model), np.random.default_rng(2)
    kinds = rng.integers(0, 4, 4 * 400)
    rows = np.zeros((len(kinds), inputs.width), np.float32)
    rows[np.arange(len(kinds)), inputs.n_categories + kinds] = 1.0
    names = [catalog.categories[item][0] for item in range(4)]
    taken = np.array([kind + 4 * int(rng.integers(0, 10)) for kind in kinds])
    examples = TaskExamples.of(rows, taken, np.repeat(np.arange(400), 4))
    shares = [examples.of_users(range(start, start + 100)) for start in range(0, 400, 100)]
    terms = terms_of(inputs, model, catalog, PublicTaking(np.zeros(len(catalog), np.float32), None))
    ground = PublicGround(inputs, terms, None)
    for promise in (None, TaskPromise(8.0)):
        learnt = learn(ground, shares, run="words", seed=1, promise=promise)
        said = learnt.correction.weight[:, inputs.n_categories :][:, :4]
        right = [model.space.categories[int(place)] for place in said.argmax(0)]
        assert right == names, promise
        assert learnt.statement["epsilon"] == (None if promise is None else pytest.approx(8.0, abs=0.05))
        assert "texts of requests" in learnt.statement["reads"]


def test_a_kept_correction_is_the_same_and_an_altered_or_foreign_one_is_refused(
    model: QueryModel, tmp_path: Path, catalog: ItemCatalog
) -> None:
    inputs = inputs_of(model)
    kept = Correction.of(inputs, inputs.untrained()[1])
    place = tmp_path / "correction"
    assert load_correction(place) is None
    save_correction(kept, place, PROMISED, "# Privacy\n")
    save_correction(kept, place, PROMISED, "# Privacy\n")  # again, in its place
    held = load_correction(place)
    assert held is not None
    assert held.inputs.hash == inputs.hash
    assert np.array_equal(held.weight, kept.weight)
    assert json.loads((place / "privacy.json").read_text()) == PROMISED
    assert held.promise == CorrectionPromise("secagg", 8.0, 1e-4)
    assert (tmp_path / "correction.1/correction.json").is_file()  # set aside, never deleted
    facts = json.loads((place / "correction.json").read_text())
    alterations: list[dict[str, object]] = [{"format": 1}, {"reader_hash": "another"}, {"weight_hash": "another"}]
    alterations += [{"categories": of} for of in (3, str(inputs.n_categories), None, [], float("nan"))]
    alterations += [{"statement_hashes": of} for of in (None, [], {"privacy.json": "another"})]
    for content in ([], None, 7, "x", *({**facts, **altered} for altered in alterations)):
        (place / "correction.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=r"(?s)correction.*fedrec query learn"):
            load_correction(place)
    (place / "correction.json").write_text(json.dumps(facts))
    tensors = load_file(place / "correction.safetensors")
    for name in tensors:
        save_file({**tensors, name: tensors[name].ravel()[:3].copy()}, place / "correction.safetensors")
        with pytest.raises(ModelError, match="altered"):
            load_correction(place)
    save_file(tensors, place / "correction.safetensors")
    for name, told in (("privacy.json", json.dumps({**PROMISED, "epsilon": 0.1})), ("PRIVACY.md", "# Private\n")):
        whole = (place / name).read_text()
        (place / name).write_text(told)
        with pytest.raises(ModelError, match=r"PRIVACY\.md was altered"):
            load_correction(place)
        (place / name).write_text(whole)
    assert load_correction(place) is not None
    (place / "correction.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot be read"):
        load_correction(place)
    foreign = RequestInputs("another reader", inputs.n_categories, inputs.centre, inputs.basis)
    with pytest.raises(ModelError, match="another reader"):
        model.corrected_by(Correction.of(foreign, inputs.untrained()[1]))
    with pytest.raises(ModelError, match="another reader"):
        Correction.of(inputs, AdapterState({f"{PART}.outer.weight": np.zeros((1, 2), np.float32)}))


def test_a_correction_that_is_cut_short_while_it_is_kept_leaves_the_one_that_stood_there(
    model: QueryModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, place = inputs_of(model), tmp_path / "correction"
    kept = Correction.of(inputs, inputs.untrained()[1])
    save_correction(kept, place, PROMISED, "# Privacy\n")

    def full(_: Path) -> None:
        raise OSError(ENOSPC, "full")

    monkeypatch.setattr("fedrec.files.sync_folder", full)
    with pytest.raises(StorageError, match="no space left"):
        save_correction(kept, place, {**PROMISED, "epsilon": 2.0}, "# Privacy\n")
    held = load_correction(place)
    assert held is not None
    assert held.promise == CorrectionPromise("secagg", 8.0, 1e-4)
    for promised in ({}, {"mode": "none", "epsilon": 8.0}, {"mode": "secagg", "epsilon": None, "delta": None}):
        with pytest.raises(ModelError, match="statement says neither"):
            save_correction(kept, tmp_path / "other", promised, "")
    assert not (tmp_path / "other").exists()


def test_a_run_reads_requests_as_its_partners_corrected_them_and_another_as_the_public(
    model: QueryModel, tmp_path: Path
) -> None:
    inputs = inputs_of(model)
    _, first = inputs.untrained()
    weight = first.tensors[f"{PART}.outer.weight"] + np.float32(1.0)
    moved = Correction.of(inputs, AdapterState({**first.tensors, f"{PART}.outer.weight": weight}))
    run, text = tmp_path / "demo", "a silly one"
    run.mkdir()
    public = model.understand(text).weights
    assert np.array_equal(corrected(model, run).understand(text).weights, public)
    save_correction(moved, correction_folder(run), PROMISED, "")
    assert not np.array_equal(corrected(model, run).understand(text).weights, public)
    assert np.array_equal(corrected(model, tmp_path / "other").understand(text).weights, public)


def test_titles_and_refusals_are_read_by_rule_and_teach_nothing(model: QueryModel, catalog: ItemCatalog) -> None:
    title = catalog.titles[7].partition(" (")[0]
    assert model.remainder_of("a silly one, no war films") == ("a silly one,",)
    assert model.remainder_of("no war films") == ()
    assert model.remainder_of(f'a silly one like "{title}"') == ('a silly one like "', 7, '"')
    rows = RequestRows(("u", "v", "u"), ("no war films", title, "a silly one"), np.array([1, 2, 3], np.int32))
    examples = rows.examples(model, inputs_of(model))
    assert (examples.n_users, examples.targets.tolist()) == (1, [3.0])
    alone = RequestRows(("u",), ("a silly one",), np.array([3], np.int32)).examples(model, inputs_of(model))
    assert np.array_equal(examples.inputs, alone.inputs)  # to the last bit, whoever else asks


def test_all_wrong_lines_of_a_file_are_named_at_once_and_no_cell_is_shown(tmp_path: Path, catalog: ItemCatalog) -> None:
    right = {"user": "u1", "request": "a silly one", "item": "i3", "timestamp": 20}
    wrong = [{"user": ""}, {"request": " "}, {"request": "x" * 501}, {"item": "secret"}, {"timestamp": "soon"}]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(json.dumps({**right, **line}) for line in ({}, *wrong)) + "\nno json\n")
    with pytest.raises(DataError, match="6 problems") as error:
        read_requests(path, catalog)
    for line, reason in enumerate(("'user'", "'request' is empty", "longer", "'item'", "'timestamp'"), start=2):
        assert any(reason in told and f"line {line}" in told for told in str(error.value).splitlines()), reason
    assert "secret" not in str(error.value)
    assert "soon" not in str(error.value)
    path.write_text("\n".join(json.dumps({**right, "timestamp": time, "item": f"i{time}"}) for time in (9, 5)))
    rows = read_requests(path, catalog)
    assert rows.items.tolist() == [5, 9]
    assert "silly" not in repr(rows)
    joined = "a film for a \U0001f468\u200d\U0001f469\u200d\U0001f467, \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    path.write_text(json.dumps({**right, "request": joined}))
    assert read_requests(path, catalog).texts == (joined,)
    for text in ("\u200d", "a\x07film"):
        path.write_text(json.dumps({**right, "request": text}))
        with pytest.raises(DataError, match="'request' is empty or not printable"):
            read_requests(path, catalog)
    path.write_text("")
    with pytest.raises(DataError, match="has no rows"):
        read_requests(path, catalog)


def test_made_users_have_words_of_their_own_and_no_two_groups_share_users_or_sentences(catalog: ItemCatalog) -> None:
    said = {
        name: tomllib.loads((files("fedrec_sim.queries") / f"{name}_phrases.toml").read_text(encoding="utf-8"))
        for name in ("user", "test")
    }
    known = training_vocabulary()
    groups = [{s for of in group.values() for s in of} for group in said["user"]["sentences"].values()]
    published = {s for of in said["test"]["sentences"].values() for s in of}
    assert len(set.union(*groups, published)) == sum(map(len, (*groups, published)))
    assert set(said["user"]["words"]) == set(known.categories)
    old = {w for of in known.categories.values() for w in (*of.names, *of.traits, *of.things)}
    old |= {w for of in said["test"]["words"].values() for kind in of.values() for w in kind}
    own = [w for of in said["user"]["words"].values() for kind in of.values() for w in kind]
    assert not old & set(own)
    assert len(own) > 200
    rng = np.random.default_rng(0)
    users = [
        UserSequence(f"u{number}", rng.permutation(40)[:15].astype(np.int32), np.arange(15.0)) for number in range(20)
    ]
    splits = leave_one_out(users)
    made = {group: user_requests(catalog, splits, group, 1) for group in ("learn", "validation", "test")}
    places = [{request.place for request in of} for of in made.values()]
    assert all(places)
    assert not places[0] & places[1]
    assert not (places[0] | places[1]) & places[2]
    assert all(request.item in splits[request.place].test for request in made["test"])
    line = json.loads(as_lines(catalog, splits, 1)[0])
    assert line["made"] is True
    assert line["user"].startswith("u")
