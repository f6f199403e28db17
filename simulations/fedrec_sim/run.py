"""A run's folder: one process at a time, every file whole or absent, an older format refused in words."""

import fcntl
import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedrec.config import SimulationConfig, parse_config
from fedrec.errors import RunError
from fedrec.registry.files import replace_file, storage_errors

FORMAT = 1
Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run folder that this process holds.

    Attributes:
        folder: `runs/NAME`.
        config: as the run was started; a resumed run never takes another.
        command: what a person typed; stands beside every figure.
    """

    folder: Path
    config: SimulationConfig
    command: str
    created_at: str
    commit: str

    def noise_root(self) -> bytes:
        """The secret key of this run's noise, made at the first call, readable by its owner only."""
        path = self.folder / "noise.key"
        if not path.exists():
            write_bytes(path, secrets.token_bytes(32))
        return path.read_bytes()

    def row_path(self, row: str, seed: int) -> Path:
        """Where a finished row's result lies."""
        return self.folder / "rows" / f"{row}-{seed}.json"

    def seconds(self) -> float:
        """Time spent on this run so far, over all its resumptions."""
        path = self.folder / "seconds.json"
        return float(read_json(path)["seconds"]) if path.exists() else 0.0

    def add_seconds(self, seconds: float) -> None:
        """Count the time of one more go at this run."""
        write_json(self.folder / "seconds.json", {"seconds": self.seconds() + seconds})

    def append_event(self, event: Json) -> None:
        """One line to events.jsonl."""
        with storage_errors(self.folder), (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, sort_keys=True) + "\n")


@contextmanager
def open_run(root: Path, config: SimulationConfig | None, name: str, command: str, *, fresh: bool) -> Iterator[Run]:
    """Hold a run's folder for this process.

    Args:
        root: folder of all runs.
        config: of a new run; None resumes the one that is there.
        fresh: start over: what an earlier run of the same name left is moved aside, never deleted.
    Raises:
        RunError: no such run, in use by another process, of another format, or started with another configuration.
        StorageError: no space or no permission.
    """
    folder = root / name
    if config is None and not (folder / "run.json").is_file():
        raise RunError(f"{folder}: no run there", "see `fedrec runs list`, or start it without --resume")
    with storage_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{name}.lock", folder):
        if fresh and folder.exists():
            _set_aside(folder)
        with storage_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)  # histories, exact figures and ledgers are the owner's alone
        yield _write_header(folder, config, command) if config is not None and fresh else read_run(folder)


@contextmanager
def _lock(path: Path, folder: Path) -> Iterator[None]:
    with storage_errors(folder):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: in use by another process", "wait for it, or choose another name") from error
        yield


def _set_aside(folder: Path) -> None:
    """Move an earlier run to NAME.1, NAME.2, ...: a new run never overwrites figures."""
    number = 1
    while folder.with_name(f"{folder.name}.{number}").exists():
        number += 1
    folder.rename(folder.with_name(f"{folder.name}.{number}"))


def _write_header(folder: Path, config: SimulationConfig, command: str) -> Run:
    run = Run(folder, config, command, datetime.now(UTC).isoformat(timespec="seconds"), commit_of_checkout())
    header = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "command": run.command,
        "created_at": run.created_at,
        "commit": run.commit,
    }
    write_json(folder / "run.json", header)
    (folder / "rows").mkdir(exist_ok=True)
    return run


def read_run(folder: Path) -> Run:
    """Read a run's header. Raises RunError if it is damaged or of another format."""
    header = read_json(folder / "run.json")
    if header.get("format") != FORMAT:
        raise RunError(
            f"{folder}: run format {header.get('format')}, this fedrec reads {FORMAT}",
            "run it with the fedrec that wrote it, or start it anew",
        )
    config = parse_config(header["config"], f"{folder}/run.json")
    return Run(folder, config, header["command"], header["created_at"], header["commit"])


def read_json(path: Path) -> Json:
    """Read a JSON object. Raises RunError naming the file if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", "the run has not got that far, or the folder is not a run") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged", "restore it or start the run anew") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object", "restore it or start the run anew")
    return value


def write_json(path: Path, value: Json) -> None:
    """Write JSON so that a reader sees the old file or the new one."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one. Raises StorageError if the disk refuses."""
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


def commit_of_checkout() -> str:
    """The commit of the code that runs, or "unknown" outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return asked.stdout.strip()
