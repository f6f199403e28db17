"""`fedrec privacy audit` as CI runs it: the real code holds and every mutant is caught."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from fedrec.errors import PrivacyError
from fedrec_sim.audit import mechanism
from fedrec_sim.cli import app

SIX = {
    "noise_times_0.7",
    "doubled_clip",
    "noise_divided_by_sqrt_batch",
    "noise_reused",
    "one_round_accounting",
    "ledger_after_read",
}


def test_the_real_code_holds_and_every_mutant_is_caught() -> None:
    result = mechanism.audit_mechanism(bytes(range(32)))
    assert result["passed"], result
    assert set(result["mutants"]) >= SIX
    assert set(result["mutants"].values()) == {"caught"}
    for figures in result["real"].values():
        assert figures["epsilon_lower_bound"] <= figures["epsilon_claimed"]
    assert result["real"]["worst_case"]["absent"] + result["real"]["worst_case"]["present"] == 20_000
    # Close below: an attack that proves next to nothing would let a real error pass.
    assert result["real"]["worst_case"]["epsilon_lower_bound"] > 0.85 * result["real"]["worst_case"]["epsilon_claimed"]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failed_audit_shows_its_figures_and_fails_the_command(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    figures = {"epsilon_claimed": 2.0, "epsilon_lower_bound": None, "refuted": True}
    failed: dict[str, Any] = {
        "passed": False,
        "real": {"worst_case": figures},
        "mutant_figures": {"noise_reused": {**figures, "refuted": False}},
        "mutants": {"noise_reused": "missed", "ledger_after_read": "caught"},
        "ledger": {"before_the_reserve": 0},
        "mechanism": {"delta": 1e-5},
        "seconds": 1.0,
    }
    monkeypatch.setattr(mechanism, "audit_mechanism", lambda **_: failed)
    result = CliRunner().invoke(app, ["privacy", "audit", *(["--json"] if as_json else [])])
    assert isinstance(result.exception, PrivacyError)
    if as_json:
        assert json.loads(result.output) == failed
    else:
        assert "missed" in result.output
        assert "beyond any" in result.output
