"""What a configuration says of each row, and what it refuses."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedrec.config import SimulationConfig, load_config, parse_config
from fedrec.errors import ConfigError
from fedrec.rows import handed_on_row, is_private, row_mode
from fedrec_sim.cli_output import CONFIGS

DEMO = CONFIGS / "demo.toml"


def changed(**sections: dict[str, Any]) -> SimulationConfig:
    values = tomllib.loads(DEMO.read_text(encoding="utf-8"))
    for name, section in sections.items():
        values[name].update(section)
    return parse_config(values, "made")


@pytest.mark.parametrize(
    ("row", "mode", "private"),
    [
        ("federated", "none", False),
        ("federated_dp", "secagg", True),
        ("federated_dp_inspect", "inspect", True),
        ("federated_eps0.5_secagg", "secagg", True),
        ("federated_eps8_inspect", "inspect", True),
        ("sasrec", None, False),
        ("federated_eps8", None, False),
    ],
)
def test_a_rows_name_says_how_it_is_trained(row: str, mode: str | None, private: bool) -> None:
    assert (row_mode(row), is_private(row)) == (mode, private)


def test_a_row_with_more_noise_has_the_settings_that_were_chosen_for_it() -> None:
    config = load_config(DEMO)
    base, noisy = config.for_row("federated_dp").private, config.for_row("federated_eps2_secagg").private
    tuned = config.private.tuned[0]
    assert (base.epsilon, noisy.epsilon) == (8.0, 2.0)
    assert base.shape == config.private.shape
    assert (noisy.shape.item_rows, noisy.shape.score_dim) == (tuned.item_rows, tuned.score_dim)
    assert [part.rounds for part in noisy.parts if part.part == "head"] == [tuned.head_rounds]
    assert [part for part in noisy.parts if part.part != "head"] == [p for p in base.parts if p.part != "head"]


@pytest.mark.parametrize(("read", "expected"), [(20, 20), (0, 50)])
def test_private_rows_may_read_less_of_a_history(read: int, expected: int) -> None:
    config = changed(private={"max_history": read})
    assert config.for_row("federated_dp").data.max_history == expected
    assert config.for_row("federated") == config
    assert config.data.max_history == 50


def test_the_first_private_row_is_handed_on_the_configurations_own_epsilon_before_others() -> None:
    assert handed_on_row(["federated", "federated_eps2_secagg", "federated_dp"]) == "federated_dp"
    assert handed_on_row(["federated", "federated_eps2_secagg"]) == "federated_eps2_secagg"
    assert handed_on_row(["popularity", "ease"]) is None


def test_public_components_need_public_data() -> None:
    with pytest.raises(ConfigError, match=r"private\.shape\.public_dim is 16, model\.public_data gives 0"):
        changed(model={"public_data": "none"})
    with pytest.raises(ConfigError, match=r"model\.public_data gives 8"):
        changed(model={"public_dim": 8})


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ('rows=["federated_eps8"]', "unknown row 'federated_eps8'"),
        ('private.tuned=[{rows=["federated"], item_rows=3}]', "private rows only"),
        ("private.shape.dropout=0.1", "noise regularises enough"),
        ('rows=["federated_eps2_secagg"]|model.feature_dim=8', r"private\.tuned of federated_eps2_secagg needs 16"),
        ("private.max_history=-1", "greater than or equal to 0"),
    ],
)
def test_what_fits_nothing_is_refused(override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(Path(DEMO), tuple(override.split("|")))
