"""Structured logs: one JSON object a line, with a round and request where there is one. Never a private value."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

# Attributes of a record that a caller may give as `extra`; anything else is dropped, so that nothing slips in.
FIELDS = (
    *("event", "partner", "round", "attempt", "part", "request", "status", "path", "seconds", "bytes", "reason"),
    *("method", "route"),  # a route is a template, where a path would hold ids
)


class JsonLines(logging.Formatter):
    """A record as JSON. Of an exception the class and place stand there, not its words, which may quote anything."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            if trace is not None:
                line["where"] = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        return json.dumps(line, ensure_ascii=False)


def log_json(to: TextIO | None = None) -> None:
    """Let this process log JSON lines, ours from `$FEDREC_LOG_LEVEL` (INFO) on, those of libraries from warnings on."""
    level = os.environ.get("FEDREC_LOG_LEVEL", "INFO").upper()
    level = level if level in logging.getLevelNamesMapping() else "INFO"
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("fedrec", "fedrec_server", "fedrec_client"):
        logging.getLogger(ours).setLevel(level)
