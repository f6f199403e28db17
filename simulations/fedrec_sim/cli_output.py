"""What every command shares: where it prints, `--json`, and the folder of runs."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

# 128 + SIGINT, as a shell reports Ctrl-C.
EXIT_STOPPED = 130

console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
RunsFolder = Annotated[Path, typer.Option("--runs", envvar="FEDREC_RUNS", help="Folder of all runs.")]
DEFAULT_RUNS = Path("runs")

_HERE = Path(__file__).resolve().parent
# In a wheel the demo's configuration lies beside this file; in a checkout it is one of the examples.
DEMO = _HERE / "demo.toml" if (_HERE / "demo.toml").is_file() else _HERE.parent / "configs" / "demo.toml"


def emit_json(value: Any) -> None:
    """Print JSON for a program."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def command_line() -> str:
    """What a person typed, without the path of the executable."""
    return shlex.join(["fedrec", *sys.argv[1:]])
