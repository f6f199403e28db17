"""Matching and refusal against slow oracles, and the shipped open set: whole, licensed, and kept apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.errors import DataError
from fedrec.evaluation.bm25 import Bm25, words_of
from fedrec.model.sentences import at_length_one
from fedrec.support.answers import read_pairs
from fedrec.support.matching import AnswerIndex, Matching, is_known
from fedrec.support.refusal import choose_threshold, refusal_at
from fedrec.support.turning import MatchTask, directions, turn_of, untrained
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.terms import TaskTerms
from fedrec.tasks.training import refuse_private_head
from fedrec_sim.support.desks import OpenSet, shipped_pairs, shipped_requests
from fedrec_sim.support.measuring import best_and_ranks, figures
from fedrec_sim.tasks.federation import federate_head
from fedrec_sim.tasks.rounds import TaskRounds

RNG = np.random.default_rng(1)


def unit(n: int, width: int = 8) -> np.ndarray:
    return at_length_one(RNG.standard_normal((n, width)))


def test_matches_are_those_of_one_product_after_the_other() -> None:
    questions, answers, asked = unit(7), unit(7), unit(1)[0]
    matching = Matching(0.3, 0.0, RNG.standard_normal((8, 8)).astype(np.float32), unit(1)[0])
    index = AnswerIndex([str(n) for n in range(7)], questions, answers)
    turned = asked + matching.turn @ asked + matching.shift  # type: ignore[operator]
    turned /= np.linalg.norm(turned)
    slow = {str(n): float(0.3 * questions[n] @ turned + 0.7 * answers[n] @ turned) for n in range(7)}
    found = index.best(asked, matching, 3)
    assert [match.id for match in found] == sorted(slow, key=lambda name: -slow[name])[:3]
    assert found[0].score == pytest.approx(slow[found[0].id], abs=1e-5)
    assert is_known(found, Matching(0.3, found[0].score))
    assert not is_known(found, Matching(0.3, found[0].score + 0.01))
    assert AnswerIndex([], np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)).best(asked, matching, 3) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_no_threshold_decides_better_than_the_chosen_one(known: list[int], unknown: list[int]) -> None:
    inner, outer = np.array(known, float), np.array(unknown, float)
    chosen = refusal_at(choose_threshold(inner, outer), inner, outer).balanced
    assert chosen == pytest.approx(max(refusal_at(at / 2 - 1, inner, outer).balanced for at in range(25)))


def test_bm25_prefers_rare_words_and_short_documents() -> None:
    index = Bm25(["log in with a password", "a log of all that happened, line by line", "a password"])
    assert index.scores("password").argmax() == 2
    assert index.scores("log in").argmax() == 0
    assert not index.scores("zebra").any()


def test_a_file_of_answers_is_refused_with_every_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id":"a","question":"q","answer":"x"}\nno\n{"id":"b","question":" ","answer":"secret"}\n')
    with pytest.raises(DataError, match="line 2: no JSON") as caught:
        read_pairs(path)
    assert "line 3: question" in str(caught.value)
    assert "secret" not in str(caught.value)
    path.write_text('{"id":"a","question":"q","answer":"x"}\n' * 2)
    with pytest.raises(DataError, match="twice"):
        read_pairs(path)


def test_the_shipped_set_is_whole_and_no_request_is_a_stored_question() -> None:
    pairs, requests = shipped_pairs(), shipped_requests()
    known = {pair.id: pair.partner for pair in pairs}
    stored = {tuple(words_of(pair.question)) for pair in pairs}
    assert len({pair.partner for pair in pairs}) == 6
    for one in requests:
        assert (one.answer is None) == (one.kind != "paraphrase")
        assert one.answer is None or known[one.answer] == one.partner
        assert tuple(words_of(one.request)) not in stored
    english = [one for one in requests if one.language == "en"]
    assert len({one.request for one in requests}) == len(requests)
    assert sum(one.kind == "paraphrase" for one in english) >= 120
    assert sum(one.answer is None for one in english) >= 60
    of = {split: {one.answer for one in english if one.split == split} - {None} for split in ("validation", "test")}
    assert not of["validation"] & of["test"]
    licences = (Path(__file__).parents[2] / "simulations/fedrec_sim/support/LICENCES.md").read_text(encoding="utf-8")
    assert all(f"| {partner} |" in licences for partner in set(known.values()))


def test_figures_of_a_perfect_matcher_are_perfect_and_ties_count_against_it() -> None:
    pairs, requests = shipped_pairs(), shipped_requests()
    empty = np.zeros((len(pairs), 1), np.float32)
    open_set = OpenSet(pairs, requests, empty, empty, np.zeros((len(requests), 1), np.float32))
    perfect = np.zeros((len(requests), len(pairs)))
    places = np.flatnonzero(open_set.targets >= 0)
    perfect[places, open_set.targets[places]] = 1.0
    found = figures(open_set, perfect)
    assert found["recall@1"] == found["auroc"] == found["refusal_balanced"] == [1.0, 1.0, 1.0]
    _, ranks = best_and_ranks(open_set, np.zeros_like(perfect))
    assert ranks[places].min() == 20  # the smallest desk


def test_an_untrained_adapter_turns_nothing_and_a_trained_one_turns_towards_the_answers() -> None:
    answers, questions = unit(12), unit(12)
    basis = directions(answers, 4)
    task = MatchTask((answers @ basis.T).astype(np.float32))
    shape, initial = untrained(4)
    turn, shift = turn_of(initial, basis)
    assert not turn.any()
    assert not shift.any()
    terms = TaskTerms(task, shape, initial, "made", "0" * 64)
    inputs, places = (questions @ basis.T).astype(np.float32), np.arange(12)
    shares = [TaskExamples.of(inputs[some], places[some], places[some]) for some in (places[:6], places[6:])]
    trained = federate_head(terms, shares, TaskRounds(3, ServerOptimizer("sgd", 1.0, 0.0)), run="made", seed=1)
    turn, shift = turn_of(trained.state, basis)
    own = np.arange(12)
    before = (questions @ answers.T)[own, own].mean()
    after = (Matching(0.0, 0.0, turn, shift).turned(questions) @ answers.T)[own, own].mean()
    assert after > before


def test_the_adapters_loss_keeps_users_apart() -> None:
    from fedrec.tasks.head import TaskHead

    refuse_private_head(TaskHead(untrained(4)[0]), MatchTask(unit(5, 4)))


ROOT = Path(__file__).parents[2]


def test_the_service_decides_as_the_bench_has_chosen() -> None:
    from fedrec_client.serving.settings import SupportSettings

    found = json.loads((ROOT / "docs/support.json").read_text(encoding="utf-8"))
    defaults = SupportSettings()
    assert defaults.question_weight == found["question_weight"]
    assert defaults.threshold == pytest.approx(found["rows"]["encoder"]["threshold"], abs=0.006)
