"""Text to public behaviour: finds what there is to find, says nothing where there is nothing, and reads known items."""

import numpy as np
import pytest

from fedrec.errors import ModelError
from fedrec.model.alignment import ContrastSettings, align_by_regression, align_contrastively, found_share

QUICK = ContrastSettings(temperature=0.2, learning_rate=0.05, weight_decay=0.0, steps=80)


def made(n_items: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour that is a rotation of the text, and a fifth of the items that the public does not know."""
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((n_items, 12)).astype(np.float32)
    behaviour = (texts @ rng.standard_normal((12, 6))).astype(np.float32)
    behaviour /= np.linalg.norm(behaviour, axis=1, keepdims=True)
    behaviour[::5] = 0.0
    return texts, behaviour


def test_both_ways_find_a_new_items_own_behaviour() -> None:
    texts, behaviour = made()
    new = np.flatnonzero(behaviour.any(1))[:40]
    known = behaviour.copy()
    known[new] = 0.0
    for predicted in (
        align_contrastively(texts, known, 0, QUICK).predict(texts[new]),
        align_by_regression(texts, known).predict(texts[new]),
    ):
        assert found_share(predicted, behaviour[new], k=3) > 0.8
    shuffled = np.random.default_rng(1).permutation(texts)  # a mutant: text of other items
    assert found_share(align_by_regression(shuffled, known).predict(texts[new]), behaviour[new], k=3) < 0.4


def test_items_that_the_public_does_not_know_teach_nothing() -> None:
    texts, behaviour = made()
    other = texts.copy()
    other[::5] = 9.0
    one, two = (align_contrastively(t, behaviour, 0, QUICK) for t in (texts, other))
    np.testing.assert_array_equal(one.weight, two.weight)
    slopes = [align_by_regression(t, behaviour).slope for t in (texts, other)]
    np.testing.assert_array_equal(*slopes)


def test_a_direction_that_texts_do_not_tell_stays_short() -> None:
    texts, behaviour = made()
    told = align_contrastively(texts, behaviour, 0, QUICK)
    guessed = align_contrastively(np.random.default_rng(3).permutation(texts), behaviour, 0, QUICK)
    assert guessed.scale < 0.3 < told.scale <= 1.0
    lengths = np.linalg.norm(told.predict(texts), axis=1)
    np.testing.assert_allclose(lengths, told.scale, rtol=1e-3)


def test_too_few_public_items_are_refused() -> None:
    texts, behaviour = made()
    behaviour[19:] = 0.0
    with pytest.raises(ModelError, match="too few to learn from"):
        align_contrastively(texts, behaviour)
    with pytest.raises(ModelError, match="too few to learn from"):
        align_by_regression(texts, behaviour)
