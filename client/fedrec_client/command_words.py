"""What every command of `flower-client` has alike: its folder, its two ways to speak."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console()
Folder = Annotated[Path, typer.Option("--dir", envvar="FEDREC_CLIENT", help="The node's folder.")]
HERE = Path()
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def node_of(folder: Path) -> Any:
    """A partner's folder. Raises ConfigError: none, with all that is wrong."""
    from fedrec_client.settings import Node

    node = Node(folder)
    node.settings  # noqa: B018  # a wrong folder is refused here, with all that is wrong
    return node


def say(told: dict[str, Any], as_json: bool, words: str) -> None:
    """To a program or to a person."""
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        console.print(words, soft_wrap=True, highlight=False, markup=False)
