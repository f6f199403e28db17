"""`fedrec bench peft`: what each way to tune the language model adds to the head alone, and what it costs.

All ways start from one head, trained first. Then the head stands still and the language model's part alone moves, for
the same number of rounds, so that what is added is the method's. The row `head` goes on training the head instead.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from peft import PeftModel

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.config import SimulationConfig
from fedrec.data.partition import deal_users
from fedrec.evaluation.protocol import evaluate_users
from fedrec.model.adapter import AdapterState
from fedrec.model.methods import part_in_round
from fedrec.model.recommender import adapter_parameters, part_names, read_state, tensor_parts, write_state
from fedrec.privacy.plan import PrivacyPlan
from fedrec.recommend.recommender import ModelRecommender
from fedrec.sections.training import MethodName
from fedrec.training.local import PlainSettings
from fedrec_server.rounds.schedule import RoundSpec
from fedrec_sim.federation import cosine, plain_schedule, private_plan, private_schedule
from fedrec_sim.peft_steps import seconds_of_steps
from fedrec_sim.run import commit_of_checkout, write_bytes, write_json
from fedrec_sim.team import Team
from fedrec_sim.world import Corpus, World

Json = dict[str, Any]
Say = Callable[[str], None]
Kind = Literal["plain", "private"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HEAD = "head"
WAYS: tuple[str, ...] = (HEAD, *get_args(MethodName))
NEVER_PRIVATE = ("adalora", "dora")
_FIGURES = ("ndcg@10", "hr@10")
# Tried on validation: of a partner's AdamW without noise, of the coordinator's step with it.
_RATES: dict[Kind, dict[str, tuple[float, ...]]] = {
    "plain": {
        **dict.fromkeys(("lora", "rslora", "rolora", "dora", "bottleneck"), (1e-3, 4e-3)),
        "ffa-lora": (2e-3, 8e-3),
        "adalora": (4e-3, 1.6e-2),
        "prompt": (1e-2, 5e-2),
        HEAD: (1e-3, 4e-3),
    },
    "private": {way: (3.0, 100.0) for way in WAYS if way != HEAD},
}


@dataclass(frozen=True)
class Bench:
    """What is trained, where finished pieces lie, and what they were made by.

    Attributes:
        rounds: of the language model's part, after the head's.
        folder: of pieces; one that the same commit left there is taken as it is.
    """

    world: World
    rounds: int
    folder: Path
    commit: str
    say: Say = field(repr=False)

    def figures(self, way: str, kind: Kind, seed: int, rate: float) -> Json:
        """Validation and test of a way that is trained at a rate, made or taken from the folder."""
        path = self.folder / f"{way}-{kind}-{seed}-{rate:g}.json"
        if path.exists() and (found := json.loads(path.read_text(encoding="utf-8")))["commit"] == self.commit:
            return dict(found)
        corpus = self.world.corpus(seed)
        model = self._model(way, kind, seed)
        write_state(model, self._trained(model, corpus, way, kind, seed, rate))
        result: Json = {"commit": self.commit}
        for which in ("validation", "test"):
            scorer = ModelRecommender(model, self.world.config.data.max_history)
            n_items = len(self.world.catalog)
            sums = evaluate_users(scorer, corpus.splits, which, n_items=n_items, tie_seed=seed).sums()
            result[which] = {name: float(sums.means()[name]) for name in _FIGURES}
        write_json(path, result)
        self.say(f"{kind}, seed {seed}, {way} at {rate:g}: validation NDCG@10 {result['validation']['ndcg@10']:.4f}")
        return result

    def _trained(self, model: PeftModel, corpus: Corpus, way: str, kind: Kind, seed: int, rate: float) -> AdapterState:
        base = self._head(corpus, way, kind, seed)
        if way == HEAD and kind == "private":
            return base  # its plan gives all rounds and all of the budget to the head
        parts, fresh = tensor_parts(model), read_state(model)
        kept = {name: base.tensors[name] for name, part in parts.items() if part in ("prior", "head", "projection")}
        start = AdapterState({**fresh.tensors, **kept})
        return self._team(model, corpus, f"{way}-{rate:g}", kind, seed, way).train(
            start, self.schedule(way, kind, corpus, rate)
        )

    def _head(self, corpus: Corpus, way: str, kind: Kind, seed: int) -> AdapterState:
        """Prior and head, trained once for all ways; under privacy `head` has a budget of its own."""
        alone = kind == "private" and way == HEAD
        path = self.folder / f"start-{kind}-{seed}{'-alone' if alone else ''}-{self.commit}.safetensors"
        if path.exists():
            return AdapterState.from_bytes(path.read_bytes())
        self.say(f"{kind}, seed {seed}: training the head first")
        of = HEAD if alone else "lora"
        model, config = self._model(of, kind, seed), self._config(of, kind)
        schedule = private_schedule(config, corpus.n_trained) if kind == "private" else plain_schedule(config)
        first = [spec for spec in schedule if spec.part in ("prior", "head")]
        state = self._team(model, corpus, f"start-{of}", kind, seed, of).train(read_state(model), first)
        write_bytes(path, state.to_bytes())
        return state

    def schedule(self, way: str, kind: Kind, corpus: Corpus, rate: float) -> list[RoundSpec]:
        """Rounds of the language model's part, or of the head in its place."""
        if kind == "private":
            schedule = private_schedule(self._config(way, kind, rate), corpus.n_trained)
            return [spec for spec in schedule if spec.part not in ("prior", "head")]
        plain, part = self.world.config.plain, "head" if way == HEAD else "lora"
        outer = ServerOptimizer("nesterov", plain.server_learning_rate, plain.server_momentum)
        method: MethodName = "lora" if way == HEAD else way  # type: ignore[assignment]
        return [
            RoundSpec(part_in_round(part, number, method), 1, 1, rate * cosine(number / self.rounds), outer)
            for number in range(self.rounds)
        ]

    def plan(self, way: str) -> PrivacyPlan:
        """What partners agree to under privacy."""
        return private_plan(self._config(way, "private"), "secagg")

    def _config(self, way: str, kind: Kind, rate: float | None = None) -> SimulationConfig:
        config, private = self.world.config, self.world.config.private
        if kind == "plain":
            return config
        parts = private.parts
        if way == HEAD:
            left = sum(part.share for part in parts if part.part != "lora")
            parts = tuple(p.model_copy(update={"share": p.share / left}) for p in parts if p.part != "lora")
        elif rate is not None:
            faster = {"server_learning_rate": rate}
            parts = tuple(p.model_copy(update=faster) if p.part == "lora" else p for p in parts)
        shape = private.shape if way == HEAD else private.shape.model_copy(update={"method": way})
        return config.model_copy(update={"private": private.model_copy(update={"parts": parts, "shape": shape})})

    def _model(self, way: str, kind: Kind, seed: int) -> PeftModel:
        config = self.world.config
        shape = config.plain.shape if kind == "plain" else config.private.shape
        return self.world.model(shape if way == HEAD else shape.model_copy(update={"method": way}), seed)

    def _team(self, model: PeftModel, corpus: Corpus, label: str, kind: Kind, seed: int, way: str) -> Team:
        config, plain = self.world.config, self.world.config.plain
        shares = deal_users(len(corpus.histories), config.partners, seed)
        settings = PlainSettings(plain.learning_rate, plain.weight_decay, plain.batch_users, config.data.max_history)
        return Team(
            label=f"bench peft/{label}-{kind}-{seed}",
            model=model,
            shares=[corpus.trained_on(users) for users in shares],
            settings=settings,
            seed=seed,
            plan=self.plan(way) if kind == "private" else None,
            epsilon=config.private.epsilon,
        )

    def sizes(self, way: str, kind: Kind) -> Json:
        """Numbers that are trained, and bytes that a partner sends in a round of them, float32, on average."""
        model = self._model(way, kind, 0)
        parameters = adapter_parameters(model)
        numbers = sum(parameters[name].numel() for name in part_names(model, ["head" if way == HEAD else "lora"]))
        halves = 2 if way == "rolora" else 1
        return {"trained_numbers": numbers, "bytes_up_per_round": 4 * numbers // halves}


def measure(
    bench: Bench, seeds: Sequence[int], command: str, kinds: Sequence[Kind] = KINDS, ways: Sequence[str] = WAYS
) -> Json:
    """Every way without privacy and at the configuration's epsilon, and seconds of a local step; what `--json` prints.

    The rate of each way is chosen by validation NDCG@10 of the first seed, and holds for all seeds.
    """
    config, found = bench.world.config, {way: Json() for way in ways}
    for kind in kinds:
        for way in ways:
            is_refused = kind == "private" and way in NEVER_PRIVATE
            found[way][kind] = None if is_refused else _over_seeds(bench, way, kind, seeds) | bench.sizes(way, kind)
        if HEAD in found:
            _beside_the_head(found, kind)
    seconds = seconds_of_steps(bench.world, [way for way in ways if way != HEAD], bench.say)
    for way, figures in seconds.items():
        found[way]["step_s"] = figures
    plan = bench.plan("lora")
    lora = next(part for part in config.private.parts if part.part == "lora")
    return {
        "protocol": config.evaluation.protocol,
        "data": config.data.source,
        "users": config.data.users,
        "max_history": config.data.max_history,
        "partners": config.partners,
        "layers": config.model.layers,
        "rank": {"plain": config.plain.shape.rank, "private": config.private.shape.rank},
        "rounds": {"plain": bench.rounds, "private": lora.rounds},
        "seeds": list(seeds),
        "rates_chosen_on": f"validation NDCG@10 of seed {seeds[0]}",
        "epsilon": plan.epsilon(),
        "delta": plan.delta,
        "mode": plan.mode,
        "share_of_the_language_model": lora.share,
        "command": command,
        "commit": bench.commit,
        "ways": found,
    }


def _over_seeds(bench: Bench, way: str, kind: Kind, seeds: Sequence[int]) -> Json:
    rates = _RATES[kind].get(way, (0.0,))
    tried = {rate: bench.figures(way, kind, seeds[0], rate)["validation"]["ndcg@10"] for rate in rates}
    best = max(tried, key=lambda rate: tried[rate])
    tests = [bench.figures(way, kind, seed, best)["test"] for seed in seeds]
    result: Json = {"rate": best, "validation_by_rate": {f"{rate:g}": value for rate, value in tried.items()}}
    for name in _FIGURES:
        values = [one[name] for one in tests]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        result[name] = {"mean": statistics.fmean(values), "std": spread, "by_seed": values}
    return result


def _beside_the_head(found: dict[str, Json], kind: Kind) -> None:
    """NDCG@10 above the head alone, seed by seed."""
    head = found[HEAD][kind]["ndcg@10"]["by_seed"]
    for figures in filter(None, (of_way[kind] for of_way in found.values())):
        figures["gain_by_seed"] = [float(gain) for gain in np.subtract(figures["ndcg@10"]["by_seed"], head)]


def smaller(config: SimulationConfig, users: int, max_history: int) -> SimulationConfig:
    """The configuration with fewer users, shorter histories and half the head's rounds, and with a larger say of the
    LLM under privacy.

    The demo gives the LLM 5% of the budget and 5 rounds, in which nothing would be seen of any method.
    """
    data = config.data.model_copy(update={"users": users, "max_history": max_history})
    given: dict[str, Json] = {
        "prior": {},
        "head": {"share": 0.5, "rounds": 20},
        "lora": {"share": 0.3, "rounds": 8, "sampling_prob": 0.25},
    }
    parts = tuple(part.model_copy(update=given[part.part]) for part in config.private.parts)
    private = config.private.model_copy(update={"parts": parts, "max_history": max_history})
    plain = config.plain.model_copy(update={"head_rounds": 6})
    return config.model_copy(update={"data": data, "plain": plain, "private": private})


def bench_of(world: World, rounds: int, folder: Path, say: Say) -> Bench:
    """With the commit of this checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    return Bench(world, rounds, folder, commit_of_checkout(), say)
