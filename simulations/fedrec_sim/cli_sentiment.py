"""`fedrec sentiment`: watch a stream of texts with a head that `fedrec bench sentiment` has trained."""

import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, emit_json, errors

if TYPE_CHECKING:
    from fedrec.sentiment.monitor import Window
    from fedrec_sim.sentiment.watching import Watching

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
    from fedrec.sentiment.change import RiseSettings
    from fedrec_client.serving.learning.alerts import Alerts, checked_address
    from fedrec_sim.sentiment.watching import Sending, Watching

    if not base < raised:
        raise ConfigError("--raised is not above --base", "give a share that is higher than the usual one")
    alerts, is_stream = Alerts(checked_address(webhook, "--webhook")), str(texts) == "-"
    lines = _opened(texts)
    sending = Sending(alerts)
    is_whole = False
    try:
        watching = Watching.open(folder / "sentiment", RiseSettings(base, raised, false_per_1000), sending.send)
        try:
            _watch(watching, lines, 1 if is_stream else _AT_ONCE, _aside if as_json else print)
            is_whole = True
        except KeyboardInterrupt:
            errors.print("stopped: what came so far counts")
    finally:
        if is_whole and webhook:
            errors.print("[dim]waiting until the webhook has what was sent, 71 s at most[/]")
        sending.close(waits=is_whole)
        lines.close()
    told = watching.figures()
    if not told["texts"]:
        errors.print("no text came: one a line is read, and empty lines count for nothing")
    page = watching.write(folder / "sentiment-watch")
    errors.print(f"[dim]report: {page}[/]")
    if as_json:
        emit_json(told)


def _opened(texts: Path) -> TextIO:
    if str(texts) == "-":
        return TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    if not texts.is_file():
        raise ConfigError(f"{texts}: no such file", "give a file with one text a line, or - for standard input")
    try:
        return texts.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{texts}: {error.strerror}", "give a file that can be read") from error


def _watch(watching: "Watching", lines: TextIO, at_once: int, tell: Callable[[str], None]) -> None:
    """All lines through the monitor; windows are told as they fill."""
    waiting: list[str] = []

    def take() -> None:
        rises, filled = watching.take(waiting, time.time())
        waiting.clear()
        for window in filled:
            tell(_words(window))
        for rise in rises:
            _aside(f"text {rise.text}: {rise}")

    for line in lines:
        if line.strip():
            waiting.append(line)
        if len(waiting) >= at_once:
            take()
    if waiting:
        take()
    if watching.unread:
        errors.print(f"{watching.unread} texts have no word that the encoder knows: left out")
    windows = watching.monitor.windows
    if windows and windows[-1].texts < watching.monitor.settings.window_texts:
        tell(_words(windows[-1]))


def _aside(line: str) -> None:
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


def _words(window: "Window") -> str:
    topics = ", ".join(f"{name} {window.negative_of_topic[name]}/{n}" for name, n in window.of_topic.items())
    return f"{window.texts} texts, {window.negative_share:.0%} negative; {topics}"
