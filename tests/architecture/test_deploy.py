"""deploy/ and the pages about it, held against the code: metrics, alerts, dashboard, units, images."""

import ast
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from fedrec.privacy.ledger_view import BudgetView
from fedrec.sentiment.monitor import Sentiment
from fedrec_client import metrics as client_metrics
from fedrec_client.cli import app as client_app
from fedrec_client.desk import REFUSALS
from fedrec_client.figures import NodeFigures, WorkerFigures
from fedrec_client.serving.http.metrics import EngineFigures, ServingMetrics
from fedrec_client.serving.http.problems import Family
from fedrec_client.serving.http.scopes import scope_needed
from fedrec_client.serving.records import Source
from fedrec_client.serving.settings import ServingSettings
from fedrec_server.admin import metrics as server_metrics
from fedrec_server.admin.figures import (
    CommittedFigures,
    Figures,
    PartnerFigures,
    RegistryFigures,
    StateFigures,
    TrainingFigures,
)
from fedrec_server.cli import app as server_app
from fedrec_server.settings import Coordinator

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
NAME = r"fedrec_(?:server|client|serving)_[a-z_]+"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

STATE = StateFigures(
    is_paused=False,
    generation=1,
    attempts={"asked": 1, "committed": 1, "failed": 1},
    bytes_up=1,
    bytes_down=1,
    last=CommittedFigures(1.0, 1, 1),
    partners=(PartnerFigures("shop", "approved", 1.0, False),),
    partners_by_status={"approved": 1},
    database_bytes=1,
)
STATEMENT = {"epsilon": 1.0, "delta": 1e-5, "partner_alone_epsilon": 1.0, "other_partner_epsilon": 1.0}
FIGURES = Figures(
    STATE, TrainingFigures("films", "inspect", 1, STATEMENT), RegistryFigures(1, 1.0, 1), 1.0, True, 1.0, 1, 1
)
NODE = NodeFigures(
    partner="shop",
    federation="films",
    mode="inspect",
    place=(1, 1, 1),
    is_paused=False,
    is_supernode_up=True,
    worker=WorkerFigures(1, dict.fromkeys(REFUSALS, 0)),
    budget=BudgetView(8.0, 1.0, 7.0, 1e-5, 4),
    adapter_round=1,
    adapter_since_s=1.0,
    heard_at_s=1.0,
    is_heard=True,
    disk_free_bytes=1,
)
GUARD = ROOT / "client/fedrec_client/serving/http"


def reasons() -> list[str]:
    """Names of the problems for which a request is not let in, as the guard's files write them."""
    text = "".join((GUARD / name).read_text(encoding="utf-8") for name in ("guard.py", "keys.py"))
    return re.findall(r'Problem\(\s*"([a-z-]+)"', text)


def serving_page() -> tuple[bytes, str]:
    """What a service tells that has done everything once."""
    metrics = ServingMetrics(lambda: EngineFigures(1, 1, 1, 1, 1.0, 1, 1.0, 0.3))
    for api in get_args(Family):
        metrics.observe(api, "/v1/recommend/{user}", "GET", 200, 0.01)
        metrics.count_list(api, get_args(Source))
        metrics.count_events(api, 1)
    for reason in reasons():
        metrics.refuse(reason)
    metrics.count_texts(dict.fromkeys(get_args(Sentiment), 1), 1)
    return metrics.exposition()


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, set[str]]]:
    """Metric -> label -> values, of a coordinator, a node and a service that have everything to tell."""
    monkeypatch.setattr(server_metrics, "read_figures", lambda _: FIGURES)
    monkeypatch.setattr(server_metrics, "_gateway_pid", lambda _: os.getpid())
    pages = [server_metrics.exposition(cast(Coordinator, None)), client_metrics.exposition(NODE), serving_page()]
    found: dict[str, dict[str, set[str]]] = {}
    for content, _ in pages:
        for family in text_string_to_metric_families(content.decode()):
            if not re.match(NAME, family.name) or family.name.endswith("_created"):
                continue  # Metarank's names for Metarank's dashboards; and when a counter began, which nobody asks
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def dashboard_expressions() -> list[str]:
    found = []
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        variables = dashboard["templating"]["list"]
        found += [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
        found += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return found


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def unknown_names(expressions: list[str], exported: dict[str, dict[str, set[str]]]) -> list[str]:
    """Metrics, labels and label values that are asked for and never exported."""
    wrong = [name for text in expressions for name in re.findall(NAME, text) if name not in exported]
    for text in expressions:
        for name, selector in re.findall(rf"({NAME})\{{([^}}]*)\}}", text):
            for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
                labels = exported.get(name, {})
                if label not in {"job", "instance", *labels}:
                    wrong.append(f"{name}: label {label}")
                elif operator == "=" and label in labels and value not in labels[label]:
                    wrong.append(f"{name}: {label}={value}")
    return wrong


def test_the_check_of_names_can_fail(exported: dict[str, dict[str, set[str]]]) -> None:
    asked = ['fedrec_server_nothing == 1 or fedrec_server_attempts_total{status="lost", partner="x"} > 0']
    expected = ["fedrec_server_nothing", "fedrec_server_attempts_total: status=lost"]
    assert unknown_names(asked, exported) == [*expected, "fedrec_server_attempts_total: label partner"]


def test_the_dashboards_ask_for_what_is_exported_and_show_all_of_it(
    exported: dict[str, dict[str, set[str]]],
) -> None:
    expressions = dashboard_expressions()
    assert unknown_names(expressions, exported) == []
    assert exported.keys() - set(re.findall(NAME, " ".join(expressions))) == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_of_a_dashboard_do_not_lie_on_each_other(path: Path) -> None:
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_dashboards_are_told_apart_and_use_the_variables_that_they_have() -> None:
    dashboards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(DASHBOARDS) == 2
    for dashboard in dashboards:
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]))) == variables


def documented(exported: dict[str, dict[str, set[str]]]) -> dict[str, set[str]]:
    """Metric -> labels, a histogram as one."""
    found: dict[str, set[str]] = {}
    for name, labels in exported.items():
        family = name.removesuffix("_bucket") if "le" in labels else re.sub(r"_(sum|count)$", "", name)
        found[family] = found.get(family, set()) | labels.keys() - {"le"}
    return found


def test_every_reason_of_a_refusal_is_documented() -> None:
    assert "busy" in reasons()
    for reason in reasons():
        assert f"`{reason}`" in OPERATIONS, reason


def test_every_metric_is_documented_and_nothing_else(exported: dict[str, dict[str, set[str]]]) -> None:
    section = OPERATIONS.split("\n## Metrics\n")[1].split("\n## ")[0]
    rows = dict(re.findall(rf"^\| `({NAME})` \| ([^|]*) \|", section, flags=re.M))
    assert {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows.items()} == documented(exported)


def test_alerts_ask_for_what_is_exported_and_lead_to_a_page(exported: dict[str, dict[str, set[str]]]) -> None:
    rules = alerts()
    assert unknown_names([rule["expr"] for rule in rules], exported) == []
    headings = re.findall(r"^### (\w+)$", OPERATIONS.split("\n## Alerts\n")[1].split("\n## ")[0], flags=re.M)
    assert [rule["alert"] for rule in rules] == headings
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_jobs_of_the_alerts_are_those_that_are_scraped() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"] for job in scraped["scrape_configs"]}
    assert jobs == {job for rule in alerts() for job in re.findall(r'job="([^"]+)"', rule["expr"])}


def test_the_service_and_its_node_are_scraped_so_that_they_can_be_compared() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in scraped["scrape_configs"]}
    labels = {name: job["static_configs"][0].get("labels") for name, job in jobs.items()}
    assert labels["fedrec-partner"] == labels["fedrec-serving"] == {"node": "music"}
    serving = jobs["fedrec-serving"]
    assert serving["static_configs"][0]["targets"] == [f"localhost:{ServingSettings(format=1).http.port}"]
    assert serving["authorization"]["type"] == "Bearer"
    assert scope_needed("GET", "/metrics") == "read"


def exists(command: list[str]) -> bool:
    """Whether a command of ours takes these words and options."""
    program, name, *options = command
    help_ = CliRunner().invoke(server_app if program.endswith("flower-server") else client_app, [name, "--help"])
    return help_.exit_code == 0 and all(o in help_.output for o in options if o.startswith("--"))


def test_the_check_of_commands_can_fail() -> None:
    assert exists(["flower-server", "start", "--dir", "x"])
    assert not exists(["flower-server", "begin"])
    assert not exists(["flower-client", "start", "--port", "1"])


def unit(path: Path) -> dict[str, list[str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"^\w+=", line)]
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_what_there_is_and_may_do_little(path: Path) -> None:
    found = unit(path)
    assert exists(found["ExecStart"][0].split())
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes", "CapabilityBoundingSet": ""}
    wanted |= {"UMask": "0077", "LimitCORE": "0", "ProtectHome": "yes", "RestrictSUIDSGID": "yes"}
    assert {key: found[key][0] for key in wanted} == wanted
    assert found["SystemCallFilter"][0] == "@system-service"
    assert found["User"] == found["Group"]
    folder = found["ExecStart"][0].split()[-1]
    assert found["ReadWritePaths"] == [folder]


def test_what_is_told_of_the_units_is_what_they_hold() -> None:
    assert [path.name for path in UNITS] == ["flower-client@.service", "flower-server.service"]
    assert ["MemoryDenyWriteExecute" in unit(path) for path in UNITS] == [False, True]  # torch writes machine code


def stages() -> dict[str, list[str]]:
    """The Dockerfile's lines by stage."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = [f"FROM {match[1]}"]
        elif found and line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize(("target", "extra"), [("server", "server,postgres"), ("client", "client,postgres")])
def test_an_image_runs_as_nobody_and_holds_no_build_tools(target: str, extra: str) -> None:
    found = stages()
    assert found[target][0] == "FROM runtime"
    assert found["runtime"][0] == "FROM ${BASE}"
    assert any(f"'.[{extra}]'" in line for line in found[f"build-{target}"])
    lines = found["runtime"] + found[target]
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert not [line for line in lines if "install" in line.replace("uninstall", "") or "apt-get" in line]
    entry, words = (json.loads(line.split(" ", 1)[1]) for line in found[target][-2:])
    assert exists([*entry, *words])


def test_the_images_hold_what_is_installed_and_nothing_else() -> None:
    copied = {word for line in stages()["build"] if line.startswith("COPY ") for word in line.split()[1:-1]}
    let_in = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_containers_may_do_little_and_hold_no_secret_in_the_environment() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "10001:10001"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert not {"environment", "env_file", "privileged", "network_mode"} & service.keys()
        target = service["build"]["target"]
        assert exists([f"flower-{target}", *service["command"]])
        assert target in stages()
    assert compose["services"]["coordinator"]["ports"] == ["8443:8443"]
    port = ServingSettings(format=1).http.port
    assert compose["services"]["partner"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"EXPOSE {port}" in stages()["client"]


# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"google": "protobuf", "prometheus_client": "prometheus-client", "dp_accounting": "dp-accounting"}
DISTRIBUTIONS |= {"dateutil": "python-dateutil"}
# Loaded only where a setting asks for it; named in an extra of its own.
OPTIONAL = {"opentelemetry": "tracing"}
PLACES = {"server": "server/fedrec_server", "client": "client/fedrec_client"}


def imported(folder: Path) -> set[str]:
    """Top-level names that the files of a folder import."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("extra", sorted(PLACES))
def test_what_is_imported_is_named_among_what_is_installed(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[\[<>=]", n)[0] for n in [*project["dependencies"], *project["optional-dependencies"][extra]]}
    ours = {"fedrec", "fedrec_server", "fedrec_client"}
    foreign = imported(ROOT / PLACES[extra]) - ours - set(sys.stdlib_module_names)
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} - named - OPTIONAL.keys() == set()
    for name, own in OPTIONAL.items():
        assert any(n.startswith(name) for n in project["optional-dependencies"][own])
