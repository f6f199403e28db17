"""Seconds of one local step of the language model's part, by method, plain and private, in turn on the same users."""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.model.recommender import part_names
from fedrec.privacy.noise import NoiseSource
from fedrec.privacy.refusals import refuse_unprivate
from fedrec.training.local import ContextCache, PlainSettings, PrivateStep, private_step, train_plain
from fedrec_sim.world import World

_USERS, _REPEATS, _STILL = 8, 7, 1e-9


def seconds_of_steps(world: World, methods: Sequence[str], say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds, the first dropped; `private` is left out where a method has none."""
    steps = {name: step for method in methods for name, step in _steps(world, method).items()}
    say(f"timing {len(steps)} steps in turn, {_REPEATS} times")
    rng, seconds = np.random.default_rng(0), {name: list[float]() for name in steps}
    for _ in range(_REPEATS + 1):
        for name in rng.permutation(list(steps)):
            started = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - started)
    found: dict[str, dict[str, float]] = {method: {} for method in methods}
    for name, values in seconds.items():
        method, _, kind = name.partition("/")
        found[method][kind] = statistics.median(values[1:])
    return found


def _steps(world: World, method: str) -> dict[str, Callable[[], object]]:
    config = world.config
    histories = world.corpus(1).trained_on(range(_USERS))
    read = config.data.max_history
    model = world.model(config.plain.shape.model_copy(update={"method": method}), 0)
    names, settings = part_names(model, ["lora"]), PlainSettings(_STILL, 0.0, _USERS, read)
    steps: dict[str, Callable[[], object]] = {
        f"{method}/plain": lambda: train_plain(
            model, names, histories, settings, epochs=1, rng=np.random.default_rng(0)
        )
    }
    noised = world.model(config.private.shape.model_copy(update={"method": method}), 0)
    try:
        refuse_unprivate(noised, [])
    except PrivacyError:  # a method that is refused under privacy has no private step to time
        return steps
    step = PrivateStep("lora", 1.0, 0.05, 0.05, _STILL, read, _USERS)
    mine = part_names(noised, ["lora"])
    source = NoiseSource.fresh(b"bench")
    return {
        **steps,
        f"{method}/private": lambda: private_step(noised, mine, histories, step, source, ContextCache()),
    }
