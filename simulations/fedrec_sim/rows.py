"""Every row of the ladder: train it, choose on validation where nothing is claimed private, report the test."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from peft import PeftModel

from fedrec.evaluation.cold_scorers import PopularToStrangers
from fedrec.evaluation.metrics import MetricSums
from fedrec.evaluation.protocol import Report, Scorer, cold_users, evaluate_users
from fedrec.model.adapter import AdapterState
from fedrec.model.recommender import part_names, read_state, write_state
from fedrec.privacy.integer_code import IntegerCode
from fedrec.recommend.recommender import ModelRecommender
from fedrec.rows import Mode, RowName, row_mode
from fedrec.secagg.packing import packed_bytes
from fedrec.training.local import PlainSettings, train_plain
from fedrec_client.worker import mean_counts
from fedrec_sim.baseline_rows import Bench, fit_floor
from fedrec_sim.federation import Federation, cosine, federate
from fedrec_sim.partners import Account
from fedrec_sim.run import Json, Run, write_json
from fedrec_sim.scenarios.measure import measure_row
from fedrec_sim.world import Corpus, World

EVERYTHING = ("head", "lora", "projection")


class Stopped(Exception):  # noqa: N818  # not an error: a person asked for it
    """Ctrl-C: what is committed stays, the rest is dropped."""


@dataclass
class RowContext:
    """What a row needs to run.

    Attributes:
        on_event: takes progress for the live view and events.jsonl.
        stop: true once a person asked to stop.
        watches: whether validation is looked at while rounds go on.
        on_scorer: takes each scorer as it is about to rank test items, which is the last that a row does with it.
    """

    world: World
    corpus: Corpus
    run: Run
    row: RowName
    seed: int
    on_event: Callable[[Json], None]
    stop: Callable[[], bool]
    before_answer: Callable[[int], None] = field(default=lambda _: None)
    watches: bool = True
    on_scorer: Callable[[Scorer], None] = field(default=lambda _: None)

    def sums(self, scorer: Scorer, which: str, users: np.ndarray | None = None) -> MetricSums:
        """Metric sums of some users (all by default), which add up over partners."""
        if which == "test":
            self.on_scorer(scorer)
        splits = self.corpus.splits if users is None else [self.corpus.splits[user] for user in users]
        seed, n_items = self.seed, len(self.world.catalog)
        return evaluate_users(scorer, splits, which, n_items=n_items, tie_seed=seed).sums()  # type: ignore[arg-type]

    def report(self, sums: MetricSums, which: str) -> Json:
        """Flat figures of sums."""
        skipped = len(self.corpus.splits) - sums.n_users
        protocol = self.world.config.evaluation.protocol
        cold = cold_users(self.corpus.splits, which)  # type: ignore[arg-type]
        report = Report.of(
            sums,
            self.corpus.popularity,
            protocol=protocol,
            which=which,  # type: ignore[arg-type]
            n_skipped=skipped,
            n_cold=cold,
        )
        values = report.to_dict()
        return {**values.pop("means"), **values}

    def progress(self, done: int, total: int) -> None:
        """Tell the live view; stop here if a person asked for it."""
        self.on_event({"event": "row_progress", "row": self.row, "seed": self.seed, "done": done, "total": total})
        if self.stop():
            raise Stopped


def finish_row(
    run: Run,
    world: World,
    row: RowName,
    seed: int,
    on_event: Callable[[Json], None],
    stop: Callable[[], bool],
    before_answer: Callable[[int], None] = lambda _: None,
) -> None:
    """Run a row for one seed and write its result; its time counts, however it ends.

    Raises: Stopped: a person asked to stop.
    """
    label = f"{row}-{seed}"
    with run.timed(label):
        scorers = deque[Scorer](maxlen=1)  # earlier ones are let go: rows that train alone have many
        corpus = world.corpus(seed)
        context = RowContext(world, corpus, run, row, seed, on_event, stop, before_answer, on_scorer=scorers.append)
        result = run_row(context)
        if world.scene is not None:
            result["scenario"] = measure_row(world, corpus, scorers[-1], row, seed)
    write_json(run.row_path(row, seed), result | {"seconds": run.seconds(label)})


def run_row(context: RowContext) -> Json:
    """Run one row for one seed; its result as JSON.

    Raises: Stopped: a person asked to stop.
    """
    context.on_event({"event": "row_started", "row": context.row, "seed": context.seed})
    mode = row_mode(context.row)
    match context.row:
        case "popularity" | "item_knn" | "ease" | "ials" | "bpr" | "sasrec" | "fedmf" | "pfedrec":
            result = _baseline(context)
        case "local_only":
            result = _alone(context, context.world.shares(context.corpus, context.seed))
        case "centralised":
            result = _alone(context, [np.arange(len(context.corpus.histories))])
        case _ if mode == "none":
            result = _federated_plain(context)
        case _ if mode:
            result = _federated_private(context, mode)
    result |= {"row": context.row, "seed": context.seed}
    done = {"event": "row_done", "row": context.row, "seed": context.seed, "test": result["test"]}
    context.on_event({**done, "privacy": result.get("privacy")})
    return result


def _baseline(context: RowContext) -> Json:
    bench = Bench(context.corpus.splits, len(context.world.catalog), context.seed, context.progress)
    floor = fit_floor(context.row, context.world.config.baselines, bench)  # type: ignore[arg-type]  # matched above
    scorer = PopularToStrangers(floor.scorer, context.corpus.popularity)
    return {
        **_test(context, context.sums(scorer, "test")),
        "validation": context.report(context.sums(scorer, "validation"), "validation"),
        "chosen_on_validation": floor.chosen,
        "epsilon": None,
        **floor.traffic,
    }


def _test(context: RowContext, sums: MetricSums) -> Json:
    """Test figures, and how often each item stood in a top ten."""
    return {"test": context.report(sums, "test"), "exposure": sums.exposure.tolist()}


def _alone(context: RowContext, groups: Sequence[np.ndarray]) -> Json:
    """Each group trains its own adapter without privacy; figures are pooled, the epoch is chosen on validation.

    Test items are ranked once, so every group's adapter of each epoch that may be chosen is kept until then: memory
    for few partners.
    """
    config = context.world.config
    one = len(groups) == 1
    epochs = config.plain.head_epochs + (config.plain.central_epochs if one else config.plain.local_only_epochs)
    trained: list[list[AdapterState]] = []
    validations: list[list[MetricSums]] = []
    for number, users in enumerate(groups):
        model = context.world.model(config.plain.shape, context.seed)
        by_epoch = _train_alone(context, model, users, epochs, number * epochs, len(groups) * epochs)
        trained.append([state for state, _ in by_epoch])
        validations.append([sums for _, sums in by_epoch])
    pooled = [sum(column[1:], column[0]) for column in zip(*validations, strict=True)]
    best = int(np.argmax([sums.means()["ndcg@10"] for sums in pooled]))
    recommender = ModelRecommender(model, config.data.max_history)
    tests = []
    for users, states in zip(groups, trained, strict=True):
        write_state(model, states[best])
        tests.append(context.sums(recommender, "test", users))
    return {
        **_test(context, sum(tests[1:], tests[0])),
        "validation": context.report(pooled[best], "validation"),
        "chosen_on_validation": {"epoch": _choices(epochs)[best]},
        "epsilon": None,
    }


def _train_alone(
    context: RowContext, model: PeftModel, users: np.ndarray, epochs: int, done: int, total: int
) -> list[tuple[AdapterState, MetricSums]]:
    """The adapter after each epoch that may be chosen, and these users' validation sums."""
    plain, max_history = context.world.config.plain, context.world.config.data.max_history
    histories = context.corpus.trained_on(users)
    recommender = ModelRecommender(model, max_history, remember=True)
    central = len(users) == len(context.corpus.histories)
    batch_users = plain.central_batch_users if central else plain.batch_users
    _set_prior(model, histories, len(context.world.catalog))
    results = []

    def after_epoch(epoch: int) -> None:
        if epoch in _choices(epochs):
            results.append((read_state(model), context.sums(recommender, "validation", users)))
        context.progress(done + epoch, total)

    rng = np.random.default_rng([context.seed, done])
    head = (("head",), 0, plain.head_epochs, plain.head_learning_rate)
    everything = (EVERYTHING, plain.head_epochs, epochs - plain.head_epochs, plain.central_learning_rate)
    for parts, before, phase_epochs, rate in (phase for phase in (head, everything) if phase[2]):
        train_plain(
            model,
            part_names(model, parts),
            histories,
            PlainSettings(rate, plain.weight_decay, batch_users, max_history),
            epochs=phase_epochs,
            rng=rng,
            rate=_warm_cosine,
            after_epoch=lambda epoch, before=before: after_epoch(before + epoch),  # type: ignore[misc]
        )
    return results


def _choices(steps: int) -> range:
    """Epochs or rounds that may be chosen on validation: every second one of the later half, and the last."""
    return range(steps - 2 * ((steps - 1) // 4), steps + 1, 2)


def _warm_cosine(progress: float) -> float:
    """A short warm-up, then a cosine."""
    return min(1.0, progress / 0.05 + 0.02) * cosine(progress)


def _set_prior(model: PeftModel, histories: Sequence[np.ndarray], n_items: int) -> None:
    (name,) = part_names(model, ["prior"])
    state = read_state(model)
    write_state(model, AdapterState({**state.tensors, name: mean_counts(histories, n_items)}))


def _federated_plain(context: RowContext) -> Json:
    federation = federation_of(context, "none")
    federation.run()
    if context.stop():
        raise Stopped
    recommender = ModelRecommender(federation.model, context.world.config.data.max_history, remember=True)
    validations = {}
    rounds = len(federation.schedule)
    for number in _choices(rounds):
        write_state(federation.model, federation.registry.load(number))
        validations[number] = context.sums(recommender, "validation")
    best = max(validations, key=lambda number: validations[number].means()["ndcg@10"])
    write_state(federation.model, federation.registry.load(best))
    return {
        **_test(context, context.sums(recommender, "test")),
        "validation": context.report(validations[best], "validation"),
        "chosen_on_validation": {"round": best},
        "epsilon": None,
        **_traffic(federation),
    }


def _federated_private(context: RowContext, mode: Mode) -> Json:
    """The last round is what is reported: choosing a round by private validation data would have to be charged."""
    federation = federation_of(context, mode)
    state = federation.run()
    if context.stop():
        raise Stopped
    write_state(federation.model, state)
    recommender = ModelRecommender(federation.model, federation.config.data.max_history)
    return {
        **_test(context, context.sums(recommender, "test")),
        "epsilon": federation.statement["epsilon"],
        "privacy": federation.statement,
        "adapter_hash": state.hash,
        **_traffic(federation),
    }


def federation_of(context: RowContext, mode: Mode, account: Account | None = None) -> Federation:
    """A federated row, ready to run, whose committed rounds are looked at."""

    def on_event(event: Json) -> None:
        event = {**event, "row": context.row, "seed": context.seed, "rounds": len(federation.schedule)}
        if event["event"] == "round_committed":
            event |= _look(context, federation, watching, int(event["round"]))
        context.on_event(event)

    federation = federate(
        context.world,
        context.corpus,
        context.run,
        row=context.row,
        seed=context.seed,
        mode=mode,
        on_event=on_event,
        stop=context.stop,
        before_answer=context.before_answer,
        account=account,
    )
    watching = ModelRecommender(federation.model, federation.config.data.max_history, remember=True)
    return federation


def _look(context: RowContext, federation: Federation, recommender: ModelRecommender, number: int) -> Json:
    """Epsilon spent, and validation on a fixed sample of users: for the person who watches, never for the adapter."""
    evaluation = context.world.config.evaluation
    found: Json = {"epsilon": federation.epsilon_after(number), "validation": None}
    if found["epsilon"] is not None:
        found["epsilon_allowed"] = federation.config.private.epsilon
    if context.watches and (number % evaluation.every_rounds == 0 or number == len(federation.schedule)):
        n_users = len(context.corpus.splits)
        watched = evaluation.watch_users or n_users
        users = np.random.default_rng(context.seed).permutation(n_users)[:watched]
        write_state(federation.model, federation.registry.load(number))
        sums = context.sums(recommender, "validation", users)
        if sums.n_users:
            means = sums.means()
            found["validation"] = {"hr@10": means["hr@10"], "ndcg@10": means["ndcg@10"], "users": sums.n_users}
    return found


def _traffic(federation: Federation) -> Json:
    sizes = {part: sum(4 * int(np.prod(s)) for s in t.values()) for part, t in federation.session.spec.parts.items()}
    masked, rounds = federation.session.masked, len(federation.schedule)
    if masked is None:
        return {"bytes_up_per_partner": sum(sizes[spec.part] for spec in federation.schedule), "rounds": rounds}
    asked = federation.config.rounds.partners_per_round or federation.config.partners
    up = 0
    for spec in federation.schedule:
        code = IntegerCode.of(masked.privacy_plan, spec.part, asked, masked.range_users)
        up += packed_bytes(sizes[spec.part] // 4, code.bits)
    # Keys and shares come on top: some 200 bytes for each other partner.
    return {"bytes_up_per_partner": up, "rounds": rounds, "exact_sums": federation.partners.plain_sums.compared}
