"""`fedrec sentiment`: watch a stream of texts with a head that `fedrec bench sentiment` has trained."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, emit_json, errors

sentiment = typer.Typer(no_args_is_help=True, help="Topics and sentiment of a stream of texts, and alarms.")
_AT_ONCE = 32


@sentiment.command()
def watch(
    texts: Annotated[Path, typer.Argument(help="A file with one text a line; - for standard input, as it comes.")],
    webhook: Annotated[str, typer.Option(help="Alarms are posted there as JSON, without texts.")] = "",
    base: Annotated[float, typer.Option(help="The negative share as it usually is.", min=0.01, max=0.98)] = 0.3,
    raised: Annotated[float, typer.Option(help="The share that must be found.", min=0.02, max=0.99)] = 0.6,
    false_per_1000: Annotated[
        float, typer.Option(help="Alarms per 1,000 texts that chance may give.", min=0.01, max=10)
    ] = 0.5,
    folder: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Tell windows, topics and rises of the negative share; alarms go to the log, the webhook and a page.

    The head is that of runs/sentiment. Texts are neither kept nor logged. The shares are those that the head says.
    Example: `fedrec sentiment watch tweets.txt --webhook http://127.0.0.1:9000/hook`
    """
    from fedrec_sim.sentiment.watching import Watching

    if not base < raised:
        raise ConfigError("--raised is not above --base", "give a share that is higher than the usual one")
    stream = sys.stdin if str(texts) == "-" else None
    if stream is None and not texts.is_file():
        raise ConfigError(f"{texts}: no such file", "give a file with one text a line, or - for standard input")
    watching = Watching.open(folder / "sentiment", base, raised, false_per_1000, webhook)
    lines = stream if stream is not None else texts.open(encoding="utf-8", errors="replace")

    async def every() -> None:
        waiting: list[str] = []
        for line in lines:
            if line.strip():
                waiting.append(line.strip())
            if len(waiting) >= (1 if stream is not None else _AT_ONCE):
                _tell(await watching.take(waiting, time.time()))
                waiting = []
        if waiting:
            _tell(await watching.take(waiting, time.time()))
        await watching.close()

    asyncio.run(every())
    told = watching.figures()
    page = watching.write(folder / "sentiment-watch")
    errors.print(f"[dim]report: {page}[/]")
    if as_json:
        emit_json(told)
    else:
        for window in told["windows"]:
            topics = ", ".join(f"{name} {one['negative']}/{one['texts']}" for name, one in window["topics"].items())
            print(f"{window['texts']} texts, {window['negative_share']:.0%} negative; {topics}")


def _tell(words: list[str]) -> None:
    for line in words:
        errors.print(line, markup=False, highlight=False)
