"""What every command of `flower-server` has alike: its folder, its two ways to speak."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console()
Folder = Annotated[Path, typer.Option("--dir", envvar="FEDREC_SERVER", help="The coordinator's folder.")]
HERE = Path()
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def coordinator_of(folder: Path) -> Any:
    """A coordinator's folder. Raises ConfigError: none, with all that is wrong."""
    from fedrec_server.settings import Coordinator

    made = Coordinator(folder)
    made.settings  # noqa: B018  # a wrong folder is refused here, with all that is wrong
    return made


def say(told: dict[str, Any], as_json: bool, words: str) -> None:
    """To a program or to a person."""
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        console.print(words, soft_wrap=True, highlight=False, markup=False)
