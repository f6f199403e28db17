"""`fedrec privacy attack`: who was there and what did they like, by what left a partner, with and without privacy."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedrec.errors import ConfigError, PrivacyError
from fedrec.files import replace_file, storage_errors
from fedrec_sim.cli_output import AsJson, command_line, console, emit_json, errors

_LEAST_SHADOWS = 4


def attack(
    shadows: Annotated[int, typer.Option(help="Trainings a setting; 20 s of a core each.", min=_LEAST_SHADOWS)] = 32,
    setting: Annotated[
        list[str] | None, typer.Option(help="none, inspect_8, inspect_1, answer_opened; may be repeated. Default all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 1,
    plot: Annotated[Path | None, typer.Option(help="Write both attacks' figures as an SVG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack one partner of the demo as a coordinator could who opens all of its answers.

    Trains the partner again and again, each user there or not by a coin, and guesses from what left who was there and
    what they liked. Exit code 6 if an attack does better than the promised epsilon allows.
    Example: `fedrec privacy attack --shadows 16 --setting inspect_8 --plot attacks.svg --json`
    """
    from fedrec_sim.audit.attack import attack as run_attacks
    from fedrec_sim.audit.attack_plots import attack_figure
    from fedrec_sim.audit.shadows import SETTINGS
    from fedrec_sim.run import commit_of_checkout

    if unknown := sorted(set(setting or []) - set(SETTINGS)):
        raise ConfigError(f"unknown setting: {', '.join(unknown)}", f"choose from {', '.join(SETTINGS)}")
    commit = commit_of_checkout()
    chosen = [one for one in SETTINGS if not setting or one in setting]
    attacks = run_attacks(chosen, shadows, seed, say=lambda text: None if as_json else errors.print(f"[dim]{text}[/]"))
    if plot is not None:
        with storage_errors(plot):
            replace_file(plot, attack_figure(attacks).encode())
    figures = {"command": command_line(), "commit": commit, **attacks.to_dict()}
    if as_json:
        emit_json(figures)
    else:
        console.print(_membership_table(figures))
        console.print(_reconstruction_table(figures))
    if beaten := [one.setting for one in attacks.settings if one.beats_its_ceiling]:
        raise PrivacyError(f"an attack beats the promise of {', '.join(beaten)}", "train nothing privately; see why")


def _membership_table(figures: dict[str, Any]) -> Table:
    table = Table("setting", "epsilon", "attacker knows", "AUC", "found at 0.1%", "found at 1%", "at most, 1%")
    for name, setting in figures["settings"].items():
        for attacker in setting["membership"]:
            found = [_shown(interval) for interval in attacker["found"][:2]]
            most = f"{setting['ceiling']['found'][1]:.3f}" if setting["ceiling"] else "-"
            epsilon = f"{setting['epsilon']:.2f}" if setting["epsilon"] else "-"
            table.add_row(name, epsilon, attacker["knows"], _shown(attacker["auc"]), *found, most)
    table.caption = f"{figures['shadows']} shadow trainings a setting; {figures['intervals']}"
    return table


def _reconstruction_table(figures: dict[str, Any]) -> Table:
    table = Table("setting", "knows all others, prior round", "and all rounds", "top of the release", "popularity")
    for name, setting in figures["settings"].items():
        found = setting["reconstruction"]
        columns = ("informed", "informed_all_rounds", "top_of_release", "popularity")
        table.add_row(name, *(_shown(found[column]) for column in columns))
    table.caption = "share of a member's items among as many guesses"
    return table


def _shown(interval: dict[str, float] | None) -> str:
    return "-" if interval is None else f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
