"""`fedrec privacy plan`: figures before anybody trains."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedrec.errors import ConfigError, FedrecError, PrivacyError
from fedrec_sim.cli import app
from fedrec_sim.cli_output import DEMO
from fedrec_sim.plan_costs import Question, epsilon_plot, plan_costs

SHARES = (("prior", 1, 1.0, 1.0, 0.3), ("head", 19, 0.5, 0.1, 0.7))


def ask(**changes: Any) -> dict[str, Any]:
    values = {"shares": SHARES, "users": 900, "epsilon": 4.0, "delta": 1e-5, "partners": 8, "quorum": 4}
    return plan_costs(Question(**{**values, **changes}))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["privacy", "plan", *arguments])


def test_the_promise_is_kept_by_both_accountants_and_reached_at_the_last_round() -> None:
    costs = ask()
    assert 3.95 < costs["epsilon"] <= 4.0
    assert abs(costs["epsilon"] - costs["epsilon_prv"]) <= 0.03
    curve = [point["epsilon"] for point in costs["epsilon_by_round"]]
    assert costs["epsilon_by_round"][-1]["round"] == costs["rounds"] == 20
    assert curve == sorted(curve)
    assert curve[-1] == costs["epsilon"]


def test_modes_differ_in_noise_and_in_whom_they_protect_against() -> None:
    inspect, secagg = (ask()["modes"][mode] for mode in ("inspect", "secagg"))
    names = [name for name in inspect if name.startswith("epsilon")]
    assert len({inspect[name] for name in names}) == 1  # nobody has to be trusted
    coordinator, partner, opened = (secagg[name] for name in names)
    assert inspect["epsilon_against_the_coordinator"] == coordinator < partner < opened
    # Four shares make the whole noise; eight partners who each add all of it have twice the spread of that.
    for alone, shared in zip(inspect["noise"], secagg["noise"], strict=True):
        assert alone["noise_std_of_the_sum"] == pytest.approx(2 * shared["noise_std_of_the_sum"])
        assert alone["noise_over_signal"] == pytest.approx(2 * shared["noise_over_signal"])


def test_noise_over_signal_by_hand() -> None:
    costs = ask(shares=(("adapter", 10, 0.5, 0.2, 1.0),), quorum=8)
    (part,), (noise,) = costs["parts"], costs["modes"]["secagg"]["noise"]
    signal = 0.5 * 900 * 0.2  # all users sampled agree, each at the clip norm
    assert noise["noise_over_signal"] == pytest.approx(noise["noise_std_of_the_sum"] / signal)
    assert noise["noise_std_of_the_sum"] == pytest.approx(part["noise_multiplier"] * 0.2)


def test_long_plans_are_drawn_with_few_points() -> None:
    rounds = [point["round"] for point in ask(shares=(("adapter", 1001, 1.0, 1.0, 1.0),))["epsilon_by_round"]]
    assert len(rounds) < 70
    assert (rounds[0], rounds[-1]) == (1, 1001)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"users": 90_000}, []), ({"delta": 0.01}, ["1/users"]), ({"epsilon": 20.0, "quorum": 1}, ["little", "quorum 1"])],
)
def test_promises_that_mean_little_are_named(changes: dict[str, Any], words: list[str]) -> None:
    warnings = ask(**changes)["warnings"]
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_the_plot_is_a_file_of_its_own_and_says_what_it_shows() -> None:
    root = ET.fromstring(epsilon_plot(ask()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "up to 3.9" in root.attrib["aria-label"]


def test_the_command_prints_json_and_writes_the_plot(tmp_path: Path) -> None:
    result = run("--users", "943", "--rounds", "20", "--json", "--plot", str(tmp_path / "e.svg"))
    assert result.exit_code == 0, result.output
    costs = json.loads(result.output)
    assert (costs["users"], costs["rounds"], costs["quorum"]) == (943, 20, 8)
    assert (tmp_path / "e.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_the_command_takes_the_parts_of_a_configuration() -> None:
    result = run("--users", "943", "--config", str(DEMO))
    assert result.exit_code == 0, result.output
    for word in ("prior", "head", "lora", "another partner"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--epsilon", "-1"], PrivacyError, "epsilon must be finite and > 0"),
        (["--delta", "2"], PrivacyError, "delta must be in"),
        (["--sampling-prob", "0"], PrivacyError, "sampling_prob must be in"),
        (["--quorum", "9"], ConfigError, "--quorum 9 exceeds --partners 8"),
        (["--rounds", "3", "--config", str(DEMO)], ConfigError, "brings its own rounds"),
        (["--plot", "/dev/null/x.svg"], FedrecError, "x.svg"),
    ],
)
def test_wrong_input_is_named(arguments: list[str], error: type[FedrecError], words: str) -> None:
    result = run("--users", "943", *arguments)
    assert isinstance(result.exception, error)
    assert words in str(result.exception)
