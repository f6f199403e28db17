"""The process that answers: one listening socket, made before anything else, and an end in good order."""

import logging
import signal
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from fedrec.errors import ConfigError
from fedrec_client.serving.http.guard import is_loopback
from fedrec_client.serving.settings import HttpSettings, ServingSettings

_log = logging.getLogger(__name__)
# Connections that wait between requests count too; the guard bounds those that are under way.
_CONNECTIONS_PER_WAITING = 4
# For what is under way when the service ends.
GRACE_S = 10.0


def serve(
    app: ASGIApp,
    settings: ServingSettings,
    *,
    has_keys: bool,
    grace_s: float = GRACE_S,
    listener: socket.socket | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT: then accept nothing more, finish what is under way, and let the app stop.

    Args:
        app: of `make_app`.
        settings: of the service.
        has_keys: whether there is an API key.
        grace_s: for what is under way; then it is cut off.
        listener: of `listen`, where the caller wants to know that the port is free before it loads a model.
    Raises: ConfigError: the port is taken, the certificate cannot be used, or strangers could listen or call.
    """
    http = settings.http
    check_exposure(http, has_keys=has_keys)
    server = uvicorn.Server(_config(app, http, grace_s))
    listener = listener or listen(http)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again when it is done, which must then not end the process before its caller does.
        signal.signal(signal.SIGTERM, server.handle_exit)
    scheme = "https" if http.certificate else "http"
    _log.info("serving on %s://%s:%d", scheme, http.host, listener.getsockname()[1], extra={"event": "serving_up"})
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    _log.info("serving ended", extra={"event": "serving_down"})


def listen(http: HttpSettings) -> socket.socket:
    """Take the port. Raises ConfigError: it is taken, or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        listener = socket.create_server((http.host, http.port), family=family, backlog=1024)
        # Connections inherit it. asyncio sets it only on sockets of another making, and a reply would wait 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        problem = f"http: {http.host}:{http.port}: {error.strerror or error}"
        raise ConfigError(problem, "choose another host or port in serving.toml") from error


def check_exposure(http: HttpSettings, *, has_keys: bool) -> None:
    """Beyond this machine, and behind a proxy, nothing without keys, and nothing in clear. Raises ConfigError."""
    if is_loopback(http.host) and not http.behind_proxy:
        return
    problems = []
    if not has_keys:
        problems.append("there is no API key, so anybody could call")
    if not (http.certificate or http.behind_proxy):
        problems.append("there is no certificate, so anybody on the way could read along")
    if problems:
        remedy = "`flower-client api-keys create` makes one; http.certificate and http.key, or http.behind_proxy"
        where = f"http.host {http.host}" + (", behind a proxy" if http.behind_proxy else "")
        raise ConfigError.of_all(problems, remedy, where)


def _config(app: ASGIApp, http: HttpSettings, grace_s: float) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="on",
        proxy_headers=http.behind_proxy,
        limit_concurrency=max(1000, _CONNECTIONS_PER_WAITING * http.waiting),
        timeout_graceful_shutdown=grace_s,  # type: ignore[arg-type]  # it waits for a fraction of a second as well
        ssl_certfile=http.certificate or None,
        ssl_keyfile=http.key or None,
        server_header=False,
        timeout_keep_alive=75,  # of connections that nobody uses; callers keep some for a minute
        access_log=False,
        log_config=None,
    )
    try:
        config.load()
    except OSError as error:  # ssl's errors are some
        problem = f"http: certificate or key cannot be used: {error.strerror or type(error).__name__}"
        raise ConfigError(problem, "both are PEM files that belong together") from error
    return config
