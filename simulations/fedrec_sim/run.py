"""A run's folder: one process at a time, every file whole or absent, an older format refused in words."""

import fcntl
import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedrec import files
from fedrec.config import SimulationConfig, parse_config
from fedrec.errors import RunError
from fedrec.files import replace_file, storage_errors

FORMAT = 1
SUMMARY_FORMAT = 1
_NEEDED = (
    *("command", "commit", "created_at", "name", "protocol", "rows", "seconds", "seeds", "versions"),
    *("data", "model", "privacy"),
)
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
        return files.read_file(path)

    def row_path(self, row: str, seed: int) -> Path:
        """Where a finished row's result lies."""
        return self.folder / "rows" / f"{row}-{seed}.json"

    def seconds(self, label: str = "run") -> float:
        """Time that this run took, or one piece of it, over all its resumptions; what SIGKILL cut off is lost."""
        path = self.folder / "seconds" / f"{label}.json"
        return float(read_json(path)["seconds"]) if path.exists() else 0.0

    @contextmanager
    def timed(self, label: str = "run") -> Iterator[None]:
        """Count the time of one go at this run, or at a piece of it, however the go ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds(label) + time.monotonic() - started
            write_json(self.folder / "seconds" / f"{label}.json", {"seconds": spent})

    def append_event(self, event: Json) -> None:
        """One line to events.jsonl."""
        with storage_errors(self.folder), (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, sort_keys=True) + "\n")


@contextmanager
def hold_run(root: Path, name: str, *, resume: bool) -> Iterator[Path]:
    """Hold a run's folder for this process; what is in it stays as it is.

    Args:
        root: folder of all runs.
        resume: the run must be there.
    Raises:
        RunError: no such run, or in use by another process.
        StorageError: no space or no permission.
    """
    folder = root / name
    if resume:
        _must_exist(folder)
    with storage_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{name}.lock", folder):
        yield folder


def start_run(folder: Path, config: SimulationConfig, command: str) -> Run:
    """Begin a run in a folder that this process holds. What an earlier one left is moved aside, never deleted.

    Raises: StorageError: no space or no permission.
    """
    run = draft_run(folder, config, command)
    with storage_errors(folder):
        if folder.exists():
            set_aside(folder)
        folder.mkdir(mode=0o700)  # histories, exact figures and ledgers are the owner's alone
        (folder / "rows").mkdir()
    _write_header(run)
    return run


def draft_run(folder: Path, config: SimulationConfig, command: str) -> Run:
    """A run that is not begun: nothing is written."""
    return Run(folder, config, command, datetime.now(UTC).isoformat(timespec="seconds"), commit_of_checkout())


def resume_run(folder: Path) -> Run:
    """Go on with a run in a folder that this process holds; a change of code in between stands in its header."""
    run = read_run(folder)
    now = commit_of_checkout()
    unfinished = any(not run.row_path(row, seed).is_file() for row in run.config.rows for seed in run.config.seeds)
    if unfinished and run.commit.rpartition(", then ")[2] != now:
        run = replace(run, commit=f"{run.commit}, then {now}")
        _write_header(run)
    return run


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


def set_aside(folder: Path, known_as: Path | None = None) -> None:
    """Move an earlier run to NAME.1, NAME.2, ...: a new run never overwrites figures.

    Args:
        known_as: whose name it gets; its own otherwise.
    """
    number, known_as = 1, known_as or folder
    while known_as.with_name(f"{known_as.name}.{number}").exists():
        number += 1
    folder.rename(known_as.with_name(f"{known_as.name}.{number}"))


def _write_header(run: Run) -> None:
    header = {
        "format": FORMAT,
        "config": run.config.model_dump(mode="json"),
        "command": run.command,
        "created_at": run.created_at,
        "commit": run.commit,
    }
    write_json(run.folder / "run.json", header)


def read_run(folder: Path) -> Run:
    """Read a run's header. Raises RunError if there is none, or it is damaged or of another format."""
    _must_exist(folder)
    header, _ = files.read_json(folder / "run.json", FORMAT)
    if missing := [key for key in ("config", "command", "created_at", "commit") if key not in header]:
        raise RunError(f"{folder}/run.json: damaged: lacks {', '.join(missing)}", "restore it or start the run anew")
    config = parse_config(header["config"], f"{folder}/run.json")
    return Run(folder, config, header["command"], header["created_at"], header["commit"])


def _must_exist(folder: Path) -> None:
    try:
        (folder / "run.json").stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{folder}: no run there", "see `fedrec runs list`, or start it without --resume") from error
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}", "mend its permissions") from error


def read_summary(folder: Path) -> Json:
    """Every figure of a finished run. Raises RunError if it is missing, damaged, incomplete or of another format."""
    path = folder / "summary.json"
    summary = read_json(path)
    if (found := summary.get("format")) != SUMMARY_FORMAT:
        raise RunError(f"{path}: format {found}, this fedrec reads {SUMMARY_FORMAT}", "use the fedrec that wrote it")
    problems = [f"{key}: missing" for key in _NEEDED if key not in summary]
    if not problems and not summary["rows"]:
        problems = ["rows: empty"]
    if problems:
        raise RunError.of_all(problems, "resume the run, which writes it anew", str(path))
    return summary


def read_events(path: Path) -> tuple[list[Json], int]:
    """Events of events.jsonl, and how many lines are unreadable: one cut off by a crash spoils no other figure."""
    if not path.exists():
        return [], 0
    events, damaged = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            event = None
        if isinstance(event, dict) and "event" in event:
            events.append(event)
        else:
            damaged += bool(line.strip())
    return events, damaged


def read_json(path: Path) -> Json:
    """Read a JSON object. Raises RunError naming the file if it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing", "the run has not got that far, or the folder is not a run") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged", "restore it or start the run anew") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}", "mend its permissions") from error
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
    """The commit of the code that runs, or "unknown" outside a checkout of it."""
    here = Path(__file__).resolve()
    try:
        # Installed below somebody else's checkout, git would answer with that one's commit.
        tracked = ["git", "-C", str(here.parent), "ls-files", "--error-unmatch", here.name]
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        asked = subprocess.run(
            ["git", "-C", str(here.parent), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return asked.stdout.strip()
