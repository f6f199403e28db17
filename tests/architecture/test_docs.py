"""Documentation that nothing runs rots: these tests hold it against the code."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from pydantic import BaseModel
from starlette.routing import Route
from typer.testing import CliRunner

from fedrec import errors
from fedrec.config import BaselinesConfig, ScenarioConfig, SimulationConfig, load_config
from fedrec.defence import AggregatorName, AttackName
from fedrec.sections.scenario import ScenarioMetric
from fedrec_client.cli import app as client_app
from fedrec_client.settings import ClientSettings
from fedrec_server.admin.api import api_routes
from fedrec_server.admin.app import monitoring_routes
from fedrec_server.admin.progress import EpsilonByRound
from fedrec_server.cli import app as server_app
from fedrec_server.gateway.app import Gateway
from fedrec_server.settings import ServerSettings
from fedrec_sim.attacks.forged import FROM_ALL
from fedrec_sim.attacks.page import section
from fedrec_sim.causal import page as causal_page
from fedrec_sim.cli import app
from fedrec_sim.scenarios import page as scenarios_page
from fedrec_sim.scenarios.page import NAMES

ROOT = Path(__file__).resolve().parents[2]


def test_every_error_and_its_exit_code_is_documented() -> None:
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.FedrecError)]
    missing = [c.__name__ for c in classes if not re.search(rf"\|\s*{c.exit_code}\s*\|\s*`{c.__name__}`", text)]
    assert not missing


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        annotation = field.annotation
        inner = getattr(annotation, "__args__", (annotation,))[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= keys_of(inner, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def keys_in(values: dict[str, object], prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        tables = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for table in tables:
            found |= keys_in(table, f"{prefix}{name}.") if isinstance(table, dict) else {f"{prefix}{name}"}
    return found


def test_demo_configuration_shows_every_key() -> None:
    values = tomllib.loads((ROOT / "simulations/configs/demo.toml").read_text(encoding="utf-8"))
    assert {key for key in keys_of(SimulationConfig) - keys_in(values) if not key.startswith("scenario.")} == set()


def test_the_configurations_of_scenarios_show_every_key_of_theirs() -> None:
    shown = set[str]()
    for name in NAMES:
        values = tomllib.loads((ROOT / f"simulations/configs/{name}.toml").read_text(encoding="utf-8"))["scenario"]
        shown |= {"events" if key == "events" else "rules" if key == "rules" else key for key in values}
    assert shown == set(ScenarioConfig.model_fields)


def test_what_is_told_of_scenarios_is_what_the_command_wrote() -> None:
    text, found = (ROOT / "docs/scenarios.md").read_text(encoding="utf-8"), figures_of("scenarios.json")
    assert f"{scenarios_page.BEGIN}\n{scenarios_page.section(found)}\n{scenarios_page.END}" in text
    assert set(found) == set(NAMES)
    for name, run in found.items():
        assert (ROOT / f"simulations/configs/{name}.toml").is_file()
        assert run["seconds"] < 300, "each runs in under five minutes"
        assert "dirty" not in run["commit"]
        assert bool(run["scenario"]["made"]) == (name in ("music", "social"))
        assert {"federated", "federated_dp", "popularity"} <= set(run["rows"])
    for metric in get_args(ScenarioMetric):
        assert f"`{metric}`" in text, metric


@pytest.mark.parametrize(
    ("template", "model"),
    [("server/fedrec_server/server.toml", ServerSettings), ("client/fedrec_client/client.toml", ClientSettings)],
)
def test_the_files_that_init_writes_show_every_key(template: str, model: type[BaseModel]) -> None:
    text = (ROOT / template).read_text(encoding="utf-8")
    ports = ("GATEWAY_PORT", "SUPERLINK_PORT", "ADMIN_PORT", "SUPERNODE_PORT", "METRICS_PORT")
    for number, word in enumerate(ports, start=9001):
        text = text.replace(word, str(number))
    for word, value in {'"NAME"': '"shop"', "ADDRESS": "x:1", "AUTHORITY": "0" * 64, '"KEY"': f'"{"0" * 64}"'}.items():
        text = text.replace(word, value)
    values = tomllib.loads(text)
    assert keys_of(model) == keys_in(values)
    model.model_validate(values)


def test_every_path_of_the_gateway_is_documented() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    gateway = Gateway(cast(Any, None), cast(Any, None), b"")
    for route in gateway.app().routes:
        path = cast(Route, route).path
        assert (f"`{path.removeprefix('/v1/fleet/')}`" if "fleet" in path else f" {path}`") in text or (
            path == "/v1/fleet/activate-node"
        )


def test_every_path_of_the_admin_api_is_documented() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    epsilon = EpsilonByRound(None, ())
    for router in (api_routes(cast(Any, None), epsilon), monitoring_routes(cast(Any, None))):
        for route in cast(list[Route], router.routes):
            for method in route.methods or ():
                assert f"`{method} {route.path}`" in text, route.path


def test_every_shipped_configuration_is_valid() -> None:
    for path in sorted((ROOT / "simulations/configs").glob("*.toml")):
        assert load_config(path).name == path.stem


def test_commands_named_in_the_readme_exist() -> None:
    text = "\n".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/tour.md", "docs/threat-model.md")
    )
    groups = r"(?:data|model|runs|bench|privacy ledger) [a-z-]+|privacy (?!ledger)[a-z]+"
    named = set(
        re.findall(
            rf"fedrec ({groups}|demo|simulate|scenarios|evaluate|recommend|cold-start|train-task|tune|rehearse"
            r"|robustness)",
            text,
        )
    )
    assert named
    for command in named:
        result = CliRunner().invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0, command


def test_commands_named_in_operations_exist() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for name, cli in (("flower-server", server_app), ("flower-client", client_app)):
        named = set(re.findall(rf"    {name} (partner [a-z]+|[a-z][a-z-]*)", text))
        assert named
        for command in named:
            assert CliRunner().invoke(cli, [*command.split(), "--help"]).exit_code == 0, command


def figures_of(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))
    return figures


def test_the_audit_table_is_what_the_command_wrote() -> None:
    text, audit = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8"), figures_of("audit.json")
    assert audit["passed"]
    for name, figures in {**audit["real"], **audit["mutant_figures"]}.items():
        least = figures["epsilon_lower_bound"]
        shown = "beyond any noise" if least is None else f"{least:.2f}"
        assert f"| `{name}` | {figures['epsilon_claimed']:.2f} | {shown} |" in text, name
    training = audit["training"]
    assert f"{training['correct']} of {training['guessed']} guesses right" in text


def test_the_attacks_told_are_those_that_were_recorded() -> None:
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    for name, setting in figures_of("attacks.json")["settings"].items():
        best = max(setting["membership"], key=lambda attacker: attacker["auc"]["value"])
        found, most = best["found"][1], setting["ceiling"]
        ceiling = f"{100 * most['found'][1]:.1f}" if most else "-"
        figures = f"{best['auc']['value']:.2f} | {100 * found['value']:.0f} [{100 * found['low']:.0f}, "
        assert f"| {figures}{100 * found['high']:.0f}] | {ceiling} |" in text, name
        assert f"| {setting['reconstruction']['informed']['value']:.2f} |" in text, name


TABLES = re.findall(r"<!-- (attack-[a-z]+): begin -->", (ROOT / "docs/robustness.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_attacks_are_what_the_command_wrote(name: str) -> None:
    text, summary = (ROOT / "docs/robustness.md").read_text(encoding="utf-8"), figures_of(f"{name}.json")
    assert f"<!-- {name}: begin -->\n{section(summary)}\n<!-- {name}: end -->" in text
    assert (ROOT / f"simulations/configs/{name}.toml").is_file()
    masked = summary["row"].endswith("_secagg")  # then no attack can read honest answers, and there is the mean alone
    blind = {*FROM_ALL, "sybil"} if masked else set()
    assert set(summary["cells"]) == set(get_args(AttackName)) - blind
    aggregators = {"mean"} if masked else set(get_args(AggregatorName))
    assert all(set(row) == aggregators for row in summary["cells"].values())


def test_what_is_told_of_causes_is_what_was_recorded() -> None:
    text, found = (ROOT / "docs/causal.md").read_text(encoding="utf-8"), figures_of("causal.json")
    assert f"{causal_page.BEGIN}\n{causal_page.section(found)}\n{causal_page.END}" in text
    values = {name: of["pooled"]["estimates"] for name, of in found["values"].items()}
    assert not values["random_to_bts"]["naive"]["covers_truth"]
    for name in ("ips", "snips", "dr"):
        one = values["random_to_bts"][name]
        assert one["covers_truth"]
        assert one["campaigns_closer"] == 3
        assert 2.9 * one["mean_relative_error"] < values["random_to_bts"]["naive"]["mean_relative_error"]
    assert values["bts_to_random"]["clipped"]["campaigns_closer"] == 3


def test_every_attack_and_aggregator_is_explained() -> None:
    text = (ROOT / "docs/robustness.md").read_text(encoding="utf-8")
    for name in (*get_args(AggregatorName), *get_args(AttackName)[1:]):
        assert re.search(rf"^\| `{name}` \| [a-z]", text, flags=re.M), name


def test_what_the_coordinator_could_guess_is_what_was_recorded() -> None:
    text = (ROOT / "docs/robustness.md").read_text(encoding="utf-8")
    found = figures_of("attacks.json")["settings"]["inspect_8"]["reconstruction"]
    told = f"{found['informed']['value']:.2f} of a user's items | {found['popularity']['value']:.2f} |"
    assert f"`inspect`, epsilon 8 | {told}" in text


def test_the_price_of_a_private_step_is_the_recorded_one() -> None:
    bench = figures_of("dp-step.json")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for way in ("plain", "opacus_hooks", "opacus_ghost"):
        assert f"{bench[f'ours_over_{way}']:.2f}" in text, way
    assert bench["oracle_error"] <= 1e-5


@pytest.mark.parametrize("row", ["sasrec", "fedmf", "pfedrec"])
def test_baselines_run_with_the_settings_that_were_recorded_as_chosen(row: str) -> None:
    tuned = json.loads((ROOT / f"simulations/tuned/{row}.json").read_text(encoding="utf-8"))
    assert getattr(BaselinesConfig(), row).model_dump(mode="json") == tuned["chosen"]
    best = max(tuned["candidates"], key=lambda tried: tried["validation"]["ndcg@10"])
    assert best["settings"] == tuned["chosen"]
    for name in ("demo", "leaderboard"):
        assert getattr(load_config(ROOT / f"simulations/configs/{name}.toml").baselines, row) == getattr(
            BaselinesConfig(), row
        )


def test_generated_users_are_described_by_what_was_recorded() -> None:
    text = (ROOT / "docs/generated-data.md").read_text(encoding="utf-8")
    real, made = (figures_of("generated-data.json")[name] for name in ("ml-100k", "generated"))
    assert made["generated"].startswith("generated users, fitted to ml-100k")
    for name, found in real["hr@10"].items():
        assert f"| HR@10, {name} | {found:.3f} | {made['hr@10'][name]:.3f} |" in text
    popular = "share_of_most_popular"
    assert f"10% of items | {real[popular]['0.1']:.3f} | {made[popular]['0.1']:.3f} |" in text


def test_what_is_told_of_the_cost_of_sums_under_masks_is_what_was_recorded() -> None:
    text, found = (ROOT / "docs/secagg.md").read_text(encoding="utf-8"), figures_of("secagg-bench.json")
    for size in found["sizes"]:
        assert size["exact"]
        line = f"| {size['partners']} | {size['neighbours']} | {size['lost']} | {size['partner_s']:.2f} s | "
        line += f"{size['bytes_over_fp32']:.2f} | {size['partner_bytes_down'] / 1e3:.0f} kB | "
        line += f"{size['coordinator_s']:.1f} s | {size['flower_secagg_plus']['client_s']:.1f} s |"
        assert line in text, line
    assert f"takes {found['training_step_s']:.2f} s" in text
    assert found["commit"][:7] in text
    assert f"All {figures_of('secagg-run.json')['masked']['exact_sums']} sums" in text
    for run in figures_of("secagg-run.json").values():
        figures = (f"{run['hr@10']:.4f} ± {run['hr@10_std']:.4f}", f"{run['ndcg@10']:.4f} ± {run['ndcg@10_std']:.4f}")
        assert all(figure in text for figure in figures)
        assert run["commit"][:7] in text


def test_links_in_the_documentation_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        broken += [f"{page.name}: {target}" for target in targets if not (page.parent / target).exists()]
    assert not broken


def test_tour_has_the_ten_stops_of_a_row() -> None:
    text = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    stops = re.findall(r"^## (\d+)\. .*", text, flags=re.M)
    assert stops == [str(n) for n in range(1, 11)]
    for name in re.findall(r"`((?:fedrec|server|client|simulations)/[\w/.-]+\.py)`", text):
        assert (ROOT / name).is_file(), name


def test_glossary_words_are_used_and_shunned_words_are_not() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    shunned = re.findall(r"^\| [^|]+\| [^|]+\| ([^|]+) \|$", text, flags=re.M)[2:]
    words = {w.strip().strip("`") for cell in shunned for w in cell.split(",")} - {"", "-"}
    assert words
    sources = [p for f in ("fedrec", "server", "client", "simulations") for p in (ROOT / f).rglob("*.py")]
    found = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in sources
        for word in words
        if re.search(rf"\b{re.escape(word)}\b", path.read_text(encoding="utf-8"), flags=re.I)
    }
    assert not found
