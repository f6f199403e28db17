"""Requests in words: rules, titles, made and published requests, what weights mean, and a reader that is taught."""

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.catalog import ItemCatalog
from fedrec.errors import ModelError
from fedrec.model.features import TextReader
from fedrec.query.attributes import AttributeSpace
from fedrec.query.learning import LearningPlan, teach
from fedrec.query.made import Language, QueryMaker, training_vocabulary
from fedrec.query.negation import split_refusals
from fedrec.query.query_model import (
    QuerySource,
    load_query_model,
    make_query_model,
    query_folder,
    save_query_model,
    understood_years,
)
from fedrec.query.reader import QueryReader, ReaderShape
from fedrec.query.rule import CatalogFacts, QueryRule
from fedrec.query.titles import TitleFinder, split_at_mentions, spoken_title
from fedrec.query.years import says_an_age, years_in

SMALL = LearningPlan(first_requests=400, head_steps=200, steps=4, batch=8, chinese=0.25)


def slowly(catalog: ItemCatalog, rule: QueryRule, item: int) -> bool:
    """The rule as one would read it aloud."""
    has, year = set(catalog.categories[item]), catalog.years[item]
    if rule.like is not None:
        own = set(catalog.categories[rule.like])
        if item == rule.like or 2 * len(own & has) < max(len(own), 1):
            return False
    in_years = (rule.first_year is None or (year is not None and year >= rule.first_year)) and (
        rule.last_year is None or (year is not None and year <= rule.last_year)
    )
    return in_years and set(rule.wanted) <= has and not set(rule.unwanted) & has and rule.title in (None, item)


def test_rules_say_what_a_slow_reader_says_of_every_made_request(catalog: ItemCatalog) -> None:
    maker = QueryMaker(catalog, training_vocabulary())
    for number in range(200):
        made = maker.make(np.random.default_rng(number), "en" if number % 3 else "zh")
        expected = [slowly(catalog, made.rule, item) for item in range(len(catalog))]
        assert maker.facts.satisfied(made.rule).tolist() == expected, made


def test_items_without_a_year_answer_no_request_for_years_and_unknown_categories_none() -> None:
    films = ItemCatalog(("1", "2"), ("A", "B"), ("-", "-"), ((), ("War",)), (None, 1990))
    facts = CatalogFacts.of(films)
    assert facts.satisfied(QueryRule(last_year=2000)).tolist() == [False, True]
    assert facts.satisfied(QueryRule(wanted=("Horror",))).tolist() == [False, False]
    assert facts.satisfied(QueryRule(unwanted=("Horror",))).tolist() == [True, True]


TITLES = [
    "Usual Suspects, The (1995)",
    "Heat (1995)",
    "Alien (1979)",
    "Aliens (1986)",
    "Like Water For Chocolate (1992)",
]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("something like Alien but funny", [2]),
        ("like aliens", [3]),
        ("the usual suspects", [0]),
        ("more in the vein of “heat”", [1]),
        ("a film where the heat is unbearable", []),
        ("Heat", [1]),
        ("we saw Like Water for Chocolate and Heat", [4, 1]),
        ("像 Alien 一样的", [2]),
        ("no aliens please", []),
        ("", []),
    ],
)
def test_titles_are_found_where_they_are_meant(text: str, items: list[int]) -> None:
    finder = TitleFinder.of(TITLES)
    mentions = finder.find(text)
    assert [mention.item for mention in mentions] == items
    pieces = split_at_mentions(text, mentions)
    assert [piece for piece in pieces if isinstance(piece, int)] == items


def test_an_article_moves_to_the_front_of_a_spoken_title() -> None:
    assert spoken_title("Postino, Il (1994)") == "Il Postino"
    assert spoken_title("(1994)") == "(1994)"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("a quiet 90s thriller, no horror", ("horror",)),
        ("a comedy without jokes or songs from the 80s", ("jokes or songs",)),
        ("I don't like war films", ("war films",)),
        ("anything but a western", ("a western",)),
        ("a drama, keep the romance out of it", ("the romance",)),
        ("喜剧电影，不要恐怖片", ("恐怖片",)),
        ("not only a comedy", ()),
        ("nothing that came out before 1990", ()),
        ("a nothing special film", ("special film",)),
        ("another notable knot", ()),
    ],
)
def test_what_is_ruled_out_is_cut_from_what_is_wanted(text: str, refused: tuple[str, ...]) -> None:
    rest, found = split_refusals(text)
    assert found == refused
    assert all(word not in rest for word in refused)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("a '90s comedy", (1990, 1999)),
        ("films of the Sixties", (1960, 1969)),
        ("from the 1930s", (1930, 1939)),
        ("90年代的喜剧", (1990, 1999)),
        ("九十年代的电影", (1990, 1999)),
        ("between 1985 and 1992", (1985, 1992)),
        ("1985-1992", (1985, 1992)),
        ("before 1970", (None, 1969)),
        ("not before 1970", (1970, None)),
        ("nothing later than 1970", (None, 1970)),
        ("1970 or later", (1970, None)),
        ("released in 1970 at the latest", (None, 1970)),
        ("since 1970", (1970, None)),
        ("after 1970", (1971, None)),
        ("1970年以前的", (None, 1969)),
        ("a film of 1970", (1970, 1970)),
        ("给我找1998年的剧情片", (1998, 1998)),
        ("推荐1990年代的电影", (1990, 1999)),
        ("no thrills, made before 1993", (None, 1992)),
        ("a funny one that is not child-friendly made before 2004", (None, 2003)),
        ("nothing that came out before 1985", (1985, None)),
        ("I do not want anything before 1990", (1990, None)),
        ("don't show me movies older than 1990", (1990, None)),
        ("not interested in films from before 1990", (1990, None)),
        ("no old films from before 1990", (1990, None)),
        ("Al Pacino films before 1990", (None, 1989)),
        ("no black and white films before 1990", (None, 1989)),
        ("90s的喜剧", (1990, 1999)),
        ("1990s的电影", (1990, 1999)),
        ("2010以后的科幻片", (2010, None)),
        ("2000年前的电影", (None, 1999)),
        ("90 minutes of fun, 12 monkeys", None),
        ("no. 5000", None),
    ],
)
def test_years_are_read_by_rule(text: str, span: tuple[int | None, int | None] | None) -> None:
    assert years_in(text) == span


@pytest.mark.parametrize(
    ("text", "is_said"),
    [
        ("recently released", True),
        ("something vintage", True),
        ("an old man and the sea", False),
        ("for a six year old", False),
        ("set in New York", False),
        ("新加坡的电影", False),
        ("近几年的电影", True),
        ("老片子", True),
    ],
)
def test_words_of_age_are_told_from_other_old_and_new_things(text: str, is_said: bool) -> None:
    assert says_an_age(text) == is_said


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_years_of_every_made_request_are_read_as_meant_or_left_to_words_of_age(
    catalog: ItemCatalog, language: Language
) -> None:
    maker = QueryMaker(catalog, training_vocabulary())
    for number in range(150):
        made = maker.make(np.random.default_rng([3, number]), language)
        said = "".join(piece for piece in made.pieces if isinstance(piece, str))
        meant = (made.rule.first_year, made.rule.last_year)
        assert (years_in(said) or (None, None)) == meant or (says_an_age(said) and meant != (None, None)), said


def test_years_that_nobody_asked_for_do_not_count(source: QuerySource) -> None:
    model = make_query_model(source, LearningPlan(16, 2, steps=1, batch=4), lambda *_: None)
    n_categories = len(model.space.categories)
    with torch.no_grad():
        model.reader.line.bias[n_categories:] = 50.0  # whatever is said, late ones are better
        model.reader.line.bias[:n_categories] = 2.0
    unasked, old = model.understand("a comedy"), model.understand("an old comedy")
    assert (unasked.first_year, unasked.last_year) == (None, None)
    assert not unasked.weights[n_categories:].any()
    assert not model.understand("a comedy, nothing too old").weights[n_categories:].any()
    assert old.weights[n_categories:].any()


@given(st.integers(1958, 2003), st.integers(0, 30), st.booleans(), st.booleans())
def test_weights_of_a_span_favour_it_and_are_understood_as_it(
    first: int, length: int, is_from: bool, is_until: bool
) -> None:
    years = tuple(range(1960, 2000))
    films = ItemCatalog(tuple(map(str, years)), tuple(f"F{y}" for y in years), ("-",) * 40, (("War",),) * 40, years)
    space, last = AttributeSpace.of(films), first + length
    low, high = first if is_from else None, last if is_until else None
    inside = CatalogFacts.of(films).satisfied(QueryRule(first_year=low, last_year=high))
    if not inside.any() or inside.all():
        return
    weights = 6 * space.meaning(low, high, np.zeros(1, np.float32))
    scores = space.of_catalog(films) @ weights
    assert scores[inside].min() > scores[~inside].max()
    told = understood_years(space, weights)
    if inside.mean() > 0.75:
        assert told == (None, None)
        return
    told_inside = CatalogFacts.of(films).satisfied(QueryRule(first_year=told[0], last_year=told[1]))
    assert told_inside.tolist() == inside.tolist()


def test_the_published_sentences_and_their_new_words_are_none_that_training_knows() -> None:
    words = tomllib.loads((files("fedrec_sim.queries") / "test_phrases.toml").read_text(encoding="utf-8"))
    vocabulary = training_vocabulary()
    trained = {phrase.strip() for of in vocabulary.phrases["en"].values() for phrase in of}
    assert not trained & {sentence for of in words["sentences"].values() for sentence in of}
    assert set(words["words"]) == set(vocabulary.categories)
    for category, new in words["words"].items():
        known = vocabulary.of(category)
        assert not {*known.names, *known.traits, *known.things} & {*new["names"], *new["traits"], *new["things"]}


@pytest.fixture(scope="module")
def source(tiny_llama: Path, catalog: ItemCatalog) -> QuerySource:
    return QuerySource(catalog, tiny_llama, None, 2)


def test_a_reader_learns_to_answer_better_than_before(source: QuerySource, catalog: ItemCatalog) -> None:
    space = AttributeSpace.of(catalog)
    torch.manual_seed(0)
    reader = QueryReader(
        TextReader.load(source.llm_folder, 2), None, catalog.texts, ReaderShape(2, 32, space.width, noise=0.05)
    )
    maker, items = QueryMaker(catalog, training_vocabulary()), space.of_catalog(catalog)

    def hits() -> float:
        made = [maker.make(np.random.default_rng([7, number])) for number in range(60)]
        with torch.no_grad():
            best = (reader.eval()([query.pieces for query in made]).numpy() @ items.T).argmax(1)
        return float(np.mean([maker.facts.satisfied(q.rule)[item] for q, item in zip(made, best, strict=True)]))

    before, steps = hits(), []
    teach(reader, maker, space, items, SMALL, lambda done, total: steps.append((done, total)))
    assert hits() > before + 0.1
    assert steps[-1] == (SMALL.steps, SMALL.steps)


def test_a_kept_reader_reads_as_before_and_a_damaged_or_foreign_one_is_none(
    source: QuerySource, tmp_path: Path
) -> None:
    plan = LearningPlan(first_requests=16, head_steps=2, steps=1, batch=4)
    model = make_query_model(source, plan, lambda *_: None)
    save_query_model(model, tmp_path)
    save_query_model(model, tmp_path)  # again, in its place
    held = load_query_model(source, tmp_path)
    assert held is not None
    text = "a quiet comedy from the 1970s, no war"
    np.testing.assert_allclose(held.understand(text).weights, model.understand(text).weights, rtol=1e-5, atol=1e-5)
    other = QuerySource(source.catalog, source.llm_folder, None, 1)
    assert load_query_model(other, tmp_path) is None
    (query_folder(tmp_path, source.key) / "reader.safetensors").write_bytes(b"cut")
    assert load_query_model(source, tmp_path) is None


def test_titles_that_others_should_be_like_are_no_answers_and_asked_titles_come_first(source: QuerySource) -> None:
    plan = LearningPlan(first_requests=16, head_steps=2, steps=1, batch=4)
    model = make_query_model(source, plan, lambda *_: None)
    items, title = model.space.of_catalog(source.catalog), spoken_title(source.catalog.titles[7])
    like, named = model.understand(f"something like {title}"), model.understand(title)
    assert (like.like, like.named) == ((7,), ())
    assert (named.like, named.named) == ((), (7,))
    assert model.scores(like, items)[7] == -np.inf
    assert model.scores(named, items).argmax() == 7


def test_what_is_told_as_unwanted_is_what_was_refused_and_nothing_else(
    source: QuerySource, catalog: ItemCatalog
) -> None:
    plan = LearningPlan(first_requests=300, head_steps=150, steps=1, batch=4, chinese=0.0)
    model = make_query_model(source, plan, lambda *_: None)
    plain, refusing = model.understand("a comedy"), model.understand("a comedy, no war film")
    assert plain.unwanted == ()
    assert refusing.unwanted
    items = model.space.of_catalog(catalog)
    refused = [set(of) & set(refusing.unwanted) != set() for of in catalog.categories]
    change = model.scores(refusing, items) - model.scores(plain, items)
    assert change[refused].mean() < change[~np.array(refused)].mean()


def test_a_catalogue_without_categories_is_refused_with_the_remedy(source: QuerySource) -> None:
    bare = ItemCatalog(("1",), ("A",), ("-",), ((),), (None,))
    with pytest.raises(ModelError, match="no categories"):
        make_query_model(QuerySource(bare, source.llm_folder, None, 2), SMALL, lambda *_: None)
