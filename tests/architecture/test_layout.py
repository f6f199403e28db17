"""The layout is the architecture: imports go one way, the coordinator cannot read a row, files stay readable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "fedrec": ROOT / "fedrec",
    "fedrec_server": ROOT / "server/fedrec_server",
    "fedrec_client": ROOT / "client/fedrec_client",
    "fedrec_sim": ROOT / "simulations/fedrec_sim",
}
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]

# What each place may import of ours. A place is a package, a folder of fedrec, or one module of it.
BASE = {"fedrec", "fedrec.errors", "fedrec.config", "fedrec.files", "fedrec.rows", "fedrec.signing"}
BASE |= {
    "fedrec.database",
    "fedrec.defence",
    "fedrec.invitation",
    "fedrec.key_statements",
    "fedrec.logs",
    "fedrec.processes",
    "fedrec.sections.baselines",
    "fedrec.sections.scenario",
    "fedrec.sections.section",
    "fedrec.sections.tracking",
    "fedrec.sections.training",
    "fedrec.toml",
}
SERVER = BASE | {"fedrec.wire", "fedrec.terms", "fedrec.model.adapter", "fedrec.privacy.plan", "fedrec.aggregation"}
SERVER |= {"fedrec.registry", "fedrec.secagg", "fedrec.privacy.integer_code", "fedrec.web"}
ALLOWED: dict[str, set[str]] = {
    "fedrec": BASE,
    "fedrec.files": {"fedrec", "fedrec.errors"},
    # Rules of serving, read when a configuration has some: without, no CEL is loaded.
    "fedrec.sections.scenario": BASE | {"fedrec.recommend.rules", "fedrec.recommend.expression"},
    "fedrec.signing": {"fedrec", "fedrec.errors", "fedrec.files"},
    "fedrec.web": BASE,
    "fedrec.client": {"fedrec", "fedrec.errors"},  # for programs that have httpx and no more
    "fedrec.wire": BASE,
    "fedrec.terms": BASE | {"fedrec.model.adapter", "fedrec.privacy.plan"},
    "fedrec.data": BASE,
    "fedrec.privacy": BASE,
    "fedrec.model": BASE | {"fedrec.data"},
    "fedrec.training": BASE | {"fedrec.data", "fedrec.model", "fedrec.privacy"},
    "fedrec.query": BASE | {"fedrec.data", "fedrec.model", "fedrec.tasks"},
    "fedrec.recommend": BASE | {"fedrec.data", "fedrec.model"},
    "fedrec.tasks": BASE | {"fedrec.data", "fedrec.model", "fedrec.privacy", "fedrec.terms"},
    "fedrec.evaluation": BASE | {"fedrec.data"},
    "fedrec.active": BASE | {"fedrec.recommend"},
    "fedrec.safety": BASE | {"fedrec.recommend"},
    "fedrec.fairness": BASE | {"fedrec.data", "fedrec.privacy", "fedrec.recommend"},
    "fedrec.support": BASE | {"fedrec.model", "fedrec.tasks"},
    "fedrec.sentiment": BASE | {"fedrec.model", "fedrec.tasks"},
    "fedrec.aggregation": BASE | {"fedrec.wire", "fedrec.model.adapter", "fedrec.privacy.plan"},
    "fedrec.secagg": BASE | {"fedrec.wire"},
    "fedrec.tracking": BASE,
    "fedrec.registry": BASE | {"fedrec.wire", "fedrec.model.adapter", "fedrec.privacy.plan"},
    "fedrec_server": SERVER,
    # Within the coordinator: what partners reach knows nothing of administration, nor of what drives rounds.
    "fedrec_server.state": SERVER,
    "fedrec_server.keys": SERVER | {"fedrec_server.settings", "fedrec_server.state"},
    "fedrec_server.rounds": SERVER | {"fedrec_server.settings", "fedrec_server.state"},
    "fedrec_server.gateway": SERVER
    | {"fedrec_server.settings", "fedrec_server.state", "fedrec_server.keys.key_rotation"}
    | {"fedrec_server.rounds.federation", "fedrec_server.rounds.heads"},
    "fedrec_server.admin": SERVER
    | {"fedrec_server.settings", "fedrec_server.supervisor", "fedrec_server.state", "fedrec_server.keys"}
    | {"fedrec_server.rounds.heads", "fedrec_server.rounds.schedule", "fedrec_server.rounds.heartbeat"}
    | {"fedrec_server.gateway.limits"},
    "fedrec_client": BASE
    | {"fedrec.wire", "fedrec.terms", "fedrec.data", "fedrec.model", "fedrec.privacy", "fedrec.training"}
    | {"fedrec.recommend", "fedrec.query", "fedrec.secagg", "fedrec.tasks", "fedrec.web", "fedrec.evaluation.metrics"}
    | {"fedrec.fairness", "fedrec.safety", "fedrec.support", "fedrec.sentiment", "fedrec.active"},
}


def module_name(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts).removesuffix(".__init__")
    raise AssertionError(path)


def place_of(module: str) -> str:
    """The longest rule that covers a module."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in ALLOWED:
            return ".".join(parts[:length])
    return parts[0]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def is_allowed(importer: str, imported: str) -> bool:
    place = place_of(importer)
    if place == "fedrec_sim" or imported == place or imported.startswith(f"{place}."):
        return True
    if place == "fedrec" and imported.startswith("fedrec."):
        return imported in BASE
    return any(imported == a or (a not in BASE and imported.startswith(f"{a}.")) for a in ALLOWED[place])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    module = module_name(path)
    ours = {name for name in imports_of(path) if name.split(".")[0] in PACKAGES}
    assert not {name for name in ours if not is_allowed(module, name)}


def test_the_rule_itself_can_fail() -> None:
    assert not is_allowed("fedrec_server.rounds.session", "fedrec.data.interactions")
    assert not is_allowed("fedrec_server.gateway.app", "fedrec_server.admin.credentials")
    assert not is_allowed("fedrec_server.gateway.app", "fedrec_server.rounds.driver")
    assert not is_allowed("fedrec_server.state.store", "fedrec_server.settings")
    assert not is_allowed("fedrec.data.catalog", "fedrec.model.adapter")
    assert not is_allowed("fedrec.aggregation.mean", "fedrec.model.recommender")
    assert not is_allowed("fedrec.secagg.partner", "fedrec.model.adapter")
    assert is_allowed("fedrec_server.rounds.session", "fedrec.model.adapter")


@pytest.mark.parametrize(
    "module",
    [
        "fedrec_server.app",
        "fedrec_server.rounds.driver",
        "fedrec_server.gateway.front",
        "fedrec_client.app",
        "fedrec_client.node",
    ],
)
def test_coordinator_and_thin_app_never_load_torch_or_data(module: str) -> None:
    """In a process of its own, since the tests themselves import torch."""
    code = (
        f"import sys, {module}; print(sorted(m for m in sys.modules if m in ('torch', 'transformers', 'fedrec.data')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_command_line_answers_before_torch_is_loaded() -> None:
    code = "import sys, fedrec_sim.cli; print(sorted({'torch', 'transformers', 'flwr'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_folders_of_the_checkout_are_no_import_names() -> None:
    code = (
        "import importlib.util as u; print([n for n in ('server', 'client', 'simulations', 'docs') if u.find_spec(n)])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "manager", "base", "common", "misc"}
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a module says what it is for"
