"""What every command shares: where it prints, `--json`, the folder of runs, and how Ctrl-C ends it."""

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
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

_CHECKOUT = Path(__file__).resolve().parents[1] / "configs"
# A wheel brings the example configurations to the environment's share folder.
CONFIGS = _CHECKOUT if (_CHECKOUT / "demo.toml").is_file() else Path(sys.prefix) / "share" / "fedrec" / "configs"
DEMO = CONFIGS / "demo.toml"


def emit_json(value: Any) -> None:
    """Print JSON for a program."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def command_line() -> str:
    """What a person typed, without what changes no figure and names places: executable, `--runs`, `--dir`."""
    typed = iter(sys.argv[1:])
    kept = []
    for word in typed:
        if word in ("--runs", "--dir"):
            next(typed, None)
        elif not word.startswith(("--runs=", "--dir=")):
            kept.append(word)
    return shlex.join(["fedrec", *kept])


@contextmanager
def until_ctrl_c() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks to stop after what is under way; the second one kills as usual."""
    asked = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
