"""What more partners cost: memory and time of a private row, each number of them in a process of its own."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fedrec.config import SimulationConfig, load_config
from fedrec.errors import RunError
from fedrec_sim.cli_output import CONFIGS
from fedrec_sim.run import start_run

Json = dict[str, Any]
_SHARE_OF_QUORUM = 0.8
# The prior, which costs a device next to nothing, and a round of the head, which is what is reported.
_ROUNDS = 2


def sweep(partners: list[int], users_per_partner: int, engine: str) -> Json:
    """Measure each number of partners in a process of its own, so that peaks are honest; the first is compared with."""
    measured = [_in_a_process(number, users_per_partner, engine) for number in partners]
    first = measured[0]
    for figures in measured:
        figures["peak_over_first"] = figures["peak_rss_bytes"] / first["peak_rss_bytes"]
        for cost in ("ms_per_partner_and_round", "cpu_ms_per_partner_and_round"):
            figures[f"{cost}_over_first"] = figures[cost] / first[cost]
    return {"row": "federated_dp", "engine": engine, "data": "generated", "sizes": measured}


def _in_a_process(partners: int, users_per_partner: int, engine: str) -> Json:
    arguments = [sys.executable, "-m", __name__, str(partners), str(users_per_partner), engine]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"the run with {partners} partners ended with {done.returncode}: {last}", "try fewer partners")
    figures: Json = json.loads(lines[-1])
    return figures


def scale_config(partners: int, users_per_partner: int, engine: str) -> SimulationConfig:
    """scale.toml with so many partners and users."""
    overrides = (
        f"partners={partners}",
        f"data.users={partners * users_per_partner}",
        f"rounds.quorum={max(1, int(_SHARE_OF_QUORUM * partners))}",
        f'engine="{engine}"',
    )
    return load_config(CONFIGS / "scale.toml", overrides)


def measure(config: SimulationConfig) -> Json:
    """Run the private row in this process, without evaluation, and say what it took."""
    from fedrec_sim.federation import federate
    from fedrec_sim.world import load_world, settle_hardware

    with tempfile.TemporaryDirectory(prefix="fedrec-scale-") as folder:
        run = start_run(Path(folder) / config.name, settle_hardware(config), "fedrec bench scale")
        world = load_world(run.config)
        seed, events = run.config.seeds[0], list[Json]()

        def on_event(event: Json) -> None:
            if event["event"] in ("round_started", "round_committed", "partner_refused"):
                events.append({**event, "cpu": time.process_time()})

        before, corpus = _peak_rss_bytes(), world.corpus(seed)
        started = time.monotonic()
        federation = federate(
            world,
            corpus,
            run,
            row="federated_dp",
            seed=seed,
            mode="secagg",
            on_event=on_event,
            stop=lambda: sum(event["event"] == "round_committed" for event in events) == _ROUNDS,
        )
        enrolled = time.monotonic()
        state = federation.run()
        rounds = [event for event in events if event["event"] == "round_committed"]
        begun = [event["cpu"] for event in events if event["event"] == "round_started"]
        seconds = [event["seconds"] for event in rounds]
        cpu = [event["cpu"] - start for event, start in zip(rounds, begun, strict=True)]
        asked = len(federation.session.cohort(1))
        return {
            "partners": config.partners,
            "users": world.table.n_users,
            "interactions": world.table.n_rows,
            "rounds": len(rounds),
            "lost_turns": sum(event["event"] == "partner_refused" for event in events),
            "peak_rss_bytes": _peak_rss_bytes(),
            "peak_rss_bytes_before_partners": before,
            "enrol_seconds": enrolled - started,
            "enrol_ms_per_partner": 1e3 * (enrolled - started) / config.partners,
            "seconds_per_round": seconds[-1],
            "seconds_by_part": {event["part"]: event["seconds"] for event in rounds},
            "ms_per_partner_and_round": 1e3 * seconds[-1] / asked,
            "cpu_ms_per_partner_and_round": 1e3 * cpu[-1] / asked,
            "epsilon": federation.statement["epsilon"],
            "partner_alone_epsilon": federation.statement["partner_alone_epsilon"],
            "adapter_hash": state.hash,
        }


def _peak_rss_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(measure(scale_config(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))))
