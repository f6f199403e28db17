"""`fedrec privacy audit`: attack our own release code, and see whether the promise holds."""

from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec.errors import PrivacyError
from fedrec_sim.cli_output import DEMO, AsJson, console, emit_json


def audit(
    training: Annotated[
        bool, typer.Option("--training", help="Train the demo's first partner with canaries as well. A minute more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send worst-case gradients 2,000 times through the real release code and guess whether they were there.

    What that proves about epsilon must stay below what is claimed, and every error that is built in on purpose (a
    mutant) must be caught; exit code 6 otherwise. Within a minute. Example: `fedrec privacy audit --json`
    """
    from fedrec_sim.audit.mechanism import audit_mechanism

    def say(name: str, fine: bool) -> None:
        if not as_json:
            console.print(f"[dim]{name}: {'as it should be' if fine else 'NOT as it should be'}[/dim]")

    result = audit_mechanism(say=say)
    if training:
        result["training"] = canaries = _audit_training()
        result["passed"] = result["passed"] and canaries["passed"]
    if as_json:
        emit_json(result)
    else:
        console.print(_table(result))
    if not result["passed"]:
        raise PrivacyError("the audit failed", "see the figures; train nothing privately until it passes")


def _audit_training() -> dict[str, Any]:
    from fedrec.config import load_config
    from fedrec_sim.audit.canaries import audit_training
    from fedrec_sim.world import load_world

    return audit_training(load_world(load_config(DEMO))).to_dict()


def _table(result: dict[str, Any]) -> Table:
    table = Table("release code", "epsilon claimed", "epsilon at least", "verdict")
    for name, figures in {**result["real"], **result["mutant_figures"]}.items():
        at_least = figures["epsilon_lower_bound"]
        verdict = "refuted" if figures["refuted"] else "holds"
        if name in result["mutants"]:
            verdict = result["mutants"][name]
        shown = "beyond any" if at_least is None else f"{at_least:.2f}"
        table.add_row(name, f"{figures['epsilon_claimed']:.2f}", shown, verdict)
    table.add_row("ledger_before_read", "", "", "holds" if not result["ledger"]["before_the_reserve"] else "refuted")
    table.add_row("ledger_after_read", "", "", result["mutants"]["ledger_after_read"])
    if "training" in result:
        seen = result["training"]
        name = f"training: {seen['correct']} of {seen['guessed']} canaries guessed right"
        figures = f"{seen['epsilon_claimed']:.2f}", f"{seen['epsilon_lower_bound']:.2f}"
        table.add_row(name, *figures, "holds" if seen["passed"] else "refuted")
    table.caption = f"delta {result['mechanism']['delta']:g}; {result['seconds']:.0f} s"
    return table
