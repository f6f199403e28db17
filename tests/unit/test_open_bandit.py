"""The Open Bandit log: the real files, files that cannot be, click models on it, and made shops after it."""

from pathlib import Path

import numpy as np
import pytest

from fedrec.data.open_bandit import PUBLISHED, BanditLog, read_open_bandit
from fedrec.data.sources import fetch
from fedrec.errors import ConfigError, DataError
from fedrec.evaluation.click_model import ClickDesign, cross_predict, fit_clicks, log_loss
from fedrec_sim.causal.made import draw_rows, make_evidence, make_shop
from fedrec_sim.causal.training import training_weights

HEAD = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3"
ITEMS = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n0,0,.5,a,b,c\n1,1,.7,x,b,d\n"
GOOD = "0,2019-11-24 00:00:00+00:00,1,3,0,0.25,u,v,w,x,0.0,1.0"


@pytest.fixture(scope="module")
def real() -> BanditLog:
    return read_open_bandit(fetch("open-bandit"), "men", "bts")


def write(folder: Path, rows: list[str], items: str = ITEMS) -> Path:
    place = folder / "bts" / "men"
    place.mkdir(parents=True)
    (place / "item_context.csv").write_text(items)
    head = f"{HEAD},user-item_affinity_0,user-item_affinity_1"
    (place / "men.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_the_real_log_is_what_its_authors_describe(real: BanditLog) -> None:
    assert (len(real), real.n_actions, real.rewards.sum()) == (10_000, 34, 69)
    assert real.shares().sum(axis=0) == pytest.approx([1, 1, 1])
    # Weights have the mean 1 if propensities are what they say.
    assert np.mean(1 / (34 * real.propensities)) == pytest.approx(1, abs=0.1)
    assert abs(real.rewards.mean() - PUBLISHED["men", "bts"].click_rate) < 0.002


def test_a_row_becomes_what_it_says(tmp_path: Path) -> None:
    log = read_open_bandit(write(tmp_path, [GOOD]), "men", "bts")
    assert (log.actions[0], log.positions[0], log.propensities[0], log.rewards[0]) == (1, 2, 0.25, 0)
    assert log.timestamps[0] == 1_574_553_600
    assert log.affinities.tolist() == [[0, 1]]
    assert log.item_words.tolist() == [[0, 0, 0], [1, 0, 1]]


def test_rows_that_cannot_be_are_named_all_at_once(tmp_path: Path) -> None:
    rows = [
        GOOD,
        GOOD.replace("0.25", "0"),
        GOOD.replace("0.25", "1.5"),
        GOOD.replace("0.25", "nan"),
        GOOD.replace(",1,3,", ",2,3,"),
        GOOD.replace(",1,3,", ",1,4,"),
        GOOD.replace(",0,0.25", ",7,0.25"),
        GOOD.replace("2019-11-24 00:00:00+00:00", "yesterday"),
        GOOD.replace("1.0", "much"),
        GOOD + ",1",
    ]
    with pytest.raises(DataError) as refused:
        read_open_bandit(write(tmp_path, rows), "men", "bts")
    text = str(refused.value)
    assert "propensity is not above 0 and at most 1: lines 3, 4, 5" in text
    for reason in (
        "item is none of 0 to 1: line 6",
        "position is none of the 3: line 7",
        "reward is not within 0 and 1",
    ):
        assert reason in text
    for line in ("line 9", "line 10", "line 11"):
        assert line in text
    assert "yesterday" not in text


@pytest.mark.parametrize("items", [ITEMS.replace("1,1,.7", "1,2,.7"), ITEMS.replace(".7", "?")])
def test_items_that_cannot_be_are_refused(tmp_path: Path, items: str) -> None:
    with pytest.raises(DataError, match="line 3"):
        read_open_bandit(write(tmp_path, [GOOD], items), "men", "bts")


def test_what_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kids"):
        read_open_bandit(tmp_path, "kids", "bts")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be read"):
        read_open_bandit(tmp_path, "men", "bts")
    with pytest.raises(DataError, match="no rows"):
        read_open_bandit(write(tmp_path, []), "men", "bts")


def test_a_click_model_is_at_the_minimum_of_its_loss(real: BanditLog) -> None:
    log = real.rows(np.arange(600))
    design, weights = ClickDesign.of(log), training_weights(log)
    model = fit_clicks(log, design, 10.0, weights)

    def loss(at: np.ndarray) -> float:
        chance = 1 / (1 + np.exp(-design.rows(log) @ at))
        return float(weights @ log_loss(chance, log.rewards) + 5.0 * (at[1:] ** 2).sum())

    best, generator = loss(model.coefficients), np.random.default_rng(1)
    for _ in range(20):
        assert loss(model.coefficients + 0.05 * generator.normal(size=design.width)) > best
    # The intercept is free, so weighted predictions add up to weighted clicks.
    assert weights @ model.predict(log) == pytest.approx(weights @ log.rewards, rel=1e-4)
    every = model.predict_all(log)
    assert every[np.arange(600), log.actions] == pytest.approx(model.predict(log))
    with pytest.raises(DataError, match="finite"):
        fit_clicks(log, design, 1.0, -weights)
    with pytest.raises(ConfigError, match="l2"):
        fit_clicks(log, design, 0.0)


def test_predictions_come_from_models_that_have_not_seen_the_row(real: BanditLog) -> None:
    log = real.rows(np.arange(900))
    policy = np.full((34, 3), 1 / 34)
    before, expected = cross_predict(log, policy, 1)
    place = int(np.flatnonzero(log.rewards)[0])
    log.rewards[place] = 0  # a copy of the rows
    after, _ = cross_predict(log, policy, 1)
    assert after[place] == before[place]
    assert not np.array_equal(after, before)
    assert expected.min() > 0
    assert expected.max() < 1


def test_a_made_shop_earns_what_was_published_and_its_draws_show_it(real: BanditLog) -> None:
    shop = make_shop(real, "men")
    for policy in ("random", "bts"):
        truth = PUBLISHED["men", policy].click_rate  # type: ignore[index]
        assert shop.truth(policy) == pytest.approx(truth)  # type: ignore[arg-type]
    actions, propensities, rewards = draw_rows(shop, "bts", 200_000, np.random.default_rng(1))
    shares = np.bincount(actions, minlength=34) / len(actions)
    assert shares == pytest.approx(shop.bts.mean(axis=0), abs=0.005)
    assert (1 / (34 * propensities)).mean() == pytest.approx(1, abs=0.02)
    assert rewards.mean() == pytest.approx(shop.truth("bts"), rel=0.1)
    evidence = make_evidence(shop, "bts", "random", 5000, np.random.default_rng(2))
    assert evidence.expected.max() < 0.05
