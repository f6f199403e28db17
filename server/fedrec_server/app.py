"""Flower's ServerApp for a run. Start it with FLWR_TELEMETRY_ENABLED=0: Flower reports usage by default."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrec_server.rounds.session import RoundSession, run_rounds

__all__ = ["RoundSession", "make_server_app"]


def make_server_app(session: RoundSession) -> ServerApp:
    """A ServerApp that runs the session's rounds and leaves the last adapter in `session.result`.

    Raises (when it runs): as `run_rounds`.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        session.result = run_rounds(grid, session)

    return app
