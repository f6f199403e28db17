"""A request and a history in one reading: what it reads, what it learns from, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedrec.data.catalog import ItemCatalog
from fedrec.data.interactions import InteractionTable
from fedrec.model.features import TextReader
from fedrec.query.attributes import AttributeSpace
from fedrec.query.made import QueryMaker, training_vocabulary
from fedrec.query.reader import QueryReader, ReaderShape
from fedrec_sim.queries.joint import JointPlan, JointReader, PublicNext, public_next, teach_joint

PLAN = JointPlan(items=3, steps=12, batch=8, head_rate=0.05, lora_rate=1e-3)


@pytest.fixture(scope="module")
def reader(tiny_llama: Path, catalog: ItemCatalog) -> QueryReader:
    torch.manual_seed(0)
    shape = ReaderShape(2, 16, AttributeSpace.of(catalog).width, dropout=0.0, noise=0.0)
    return QueryReader(TextReader.load(tiny_llama, 2), None, catalog.texts, shape).eval()


def test_a_history_moves_what_is_read_only_where_it_is_read(reader: QueryReader) -> None:
    torch.manual_seed(1)
    both, words = (JointReader(reader, 4, with_history=flag).eval() for flag in (True, False))
    with torch.no_grad():
        for joint in (both, words):
            joint.taste.weight.normal_()
        read = [joint([("a comedy",)], [history]) for joint in (both, words) for history in ([1, 2], [3, 4])]
    assert not torch.allclose(read[0], read[1])
    assert torch.equal(read[2], read[3])


def test_a_made_request_about_an_item_is_answered_by_it_and_names_no_title(catalog: ItemCatalog) -> None:
    maker = QueryMaker(catalog, training_vocabulary())
    for number in range(60):
        made = maker.about(number % len(catalog), np.random.default_rng(number))
        assert maker.facts.satisfied(made.rule)[number % len(catalog)]
        assert all(isinstance(piece, str) and piece for piece in made.pieces)


def test_what_somebody_had_next_comes_with_what_was_before_it_in_the_catalogues_own_codes() -> None:
    def catalog(*ids: str) -> ItemCatalog:
        titles, years = tuple(f"Film {name}" for name in ids), (1990,) * len(ids)
        return ItemCatalog(ids, titles, titles, ((),) * len(ids), years)

    ours, theirs = catalog("d", "a", "b", "c", "e"), catalog("a", "b", "x", "c", "d", "e")
    public = InteractionTable(
        user_codes=np.zeros(6, np.int32),
        item_codes=np.arange(6, dtype=np.int32),
        rating=np.full(6, np.nan, np.float32),
        timestamp=np.arange(6.0),
        user_ids=("u",),
        item_ids=theirs.ids,
    )
    found = public_next(ours, theirs, public, seed=1)
    assert [(one.history.tolist(), one.target) for one in found] == [([1, 2, 3], 0), ([1, 2, 3, 0], 4)]


def test_it_learns_what_people_with_a_history_have_next(reader: QueryReader, catalog: ItemCatalog) -> None:
    people = [PublicNext(np.array([1, 1, 1], np.int32), 5), PublicNext(np.array([2, 2, 2], np.int32), 6)]
    maker, n_items = QueryMaker(catalog, training_vocabulary()), len(catalog)
    width = AttributeSpace.of(catalog).width
    columns = np.zeros((width + 2, n_items), np.float32)
    columns[width, 5], columns[width + 1, 6] = 1.0, 1.0  # no attribute tells the two apart: the history must
    joint = JointReader(reader, 2, with_history=True)
    steps: list[tuple[int, ...]] = []
    teach_joint(joint, maker, people, columns, np.zeros(n_items, np.float32), PLAN, lambda *done: steps.append(done))
    with torch.no_grad():
        first, second = joint([("a film",), ("a film",)], [[1, 1, 1], [2, 2, 2]])[:, width:]
    assert first[0] - first[1] > second[0] - second[1]
    assert first[0] > 0.5
    assert second[1] > 0.5
    assert steps[-1] == (PLAN.steps, PLAN.steps)
