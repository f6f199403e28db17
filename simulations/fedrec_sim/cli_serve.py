"""`fedrec serve`: try a partner's service on a finished run."""

import os
from typing import Annotated

import typer

from fedrec_sim.cli_output import DEFAULT_RUNS, RunsFolder, console
from fedrec_sim.cli_runs import RunName


def serve(
    run: RunName = "demo",
    port: Annotated[int | None, typer.Option(help="In place of http.port in serving.toml.", min=0, max=65535)] = None,
    folder: RunsFolder = DEFAULT_RUNS,
    events: Annotated[bool, typer.Option(help="Take the run's interactions as first events.")] = True,
) -> None:
    """Serve recommendations from a run's adapter on this machine: three APIs, a storefront, the operator's page.

    The service is the partner's own; its folder is RUN/serving, with `serving.toml`, where every key stands, and the
    store. The first start puts the run's interactions into the store. docs/serving.md has curl lines.

    Example: `fedrec serve --run demo`, then http://127.0.0.1:8088/shop
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are loaded: see serving.toml, model.threads
    os.environ.setdefault("FEDREC_LOG_LEVEL", "WARNING")  # no line for each request: somebody watches
    from fedrec.logs import log_json
    from fedrec_sim.serve_run import serve_run

    log_json()
    serve_run(folder / run, port, with_events=events, say=lambda line: console.print(f"[dim]{line}[/dim]"))
