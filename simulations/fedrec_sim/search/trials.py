"""One trial after the other: Optuna proposes settings, the row is trained with them, validation judges."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedrec.config import SimulationConfig
from fedrec.data.datasets import Say
from fedrec.errors import ConfigError, RunError
from fedrec.files import make_folders, storage_errors
from fedrec.model.recommender import write_state
from fedrec.recommend.recommender import ModelRecommender
from fedrec.rows import is_private, row_mode
from fedrec_sim.partners import Account
from fedrec_sim.rows import RowContext, Stopped, federation_of
from fedrec_sim.run import Json, Run, write_json
from fedrec_sim.search.charges import Charge, Release, charge_of, why_free
from fedrec_sim.search.page import write_page
from fedrec_sim.search.settings import SearchConfig, Value, refuse_unfit, with_values
from fedrec_sim.world import Corpus, World

FORMAT = 1
RESULT = "search.json"


@dataclass
class Search:
    """A search that this process holds.

    Attributes:
        free: why it costs nobody's privacy, in words; None if `charge` is paid for each trial.
        trials: in all, those of earlier goes included.
        stop: true once a person asked to stop; a trial under way goes on when the search is resumed.
    """

    run: Run
    world: World
    settings: SearchConfig
    trials: int
    free: str | None
    charge: Charge | None
    say: Say = field(repr=False)
    stop: Callable[[], bool] = field(repr=False)

    @property
    def account(self) -> Account | None:
        """What all trials share, where they are charged."""
        if self.charge is None:
            return None
        dataset = f"{self.run.config.data.source}/search"
        return Account(self.run.folder / "ledger", dataset, self.charge.budget_epsilon)


def refuse_without_optuna() -> None:
    """Raises ConfigError: Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError("optuna is not installed", "pip install 'fedrec[search]'") from error


def prepare(
    run: Run, world: World, settings: SearchConfig, trials: int, say: Say, stop: Callable[[], bool] = lambda: False
) -> Search:
    """Check everything, and say what it costs, before a row is read for it.

    Raises:
        ConfigError: keys that do not fit, or private data without what charging them needs.
        BudgetError: so many trials cost more than the budget.
    """
    free = why_free(run.config, settings, world.table)
    refuse_unfit(run.config, settings, is_charged=free is None)
    charge = charge_of(run.config, settings) if free is None else None
    if charge is None:
        say(f"{trials} trials, free: {free}")
    else:
        charge.refuse_too_many(trials)
        told = charge.to_dict(trials)
        say(
            f"{trials} trials, charged: epsilon {told['trial_epsilon']:.2f} each, {told['total_epsilon']:.2f} together "
            f"of {told['budget_epsilon']:g} at delta {told['delta']:g}, looks at validation included"
        )
    return Search(run, world, settings, trials, free, charge, say, stop)


def run_search(search: Search) -> Json:
    """Run what is missing of the trials, and write `search.json` and `search.html`.

    Returns: every trial, the best one, and what it cost.
    Raises: Stopped: what is finished stays, and the trial under way goes on later.
    """
    study = _study(search.run.folder)
    corpus, config = search.world.corpus(search.settings.seed), search.run.config
    with search.run.timed():
        for number in range(search.trials):
            if number < len(study.trials) and study.trials[number].state.is_finished():
                continue
            _one_trial(search, study, corpus, number)
    summary = _summary(search, study, config)
    write_json(search.run.folder / RESULT, summary)
    write_page(search.run.folder, summary)
    return summary


def _study(folder: Path) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{(folder / 'search.sqlite').resolve()}"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    return optuna.create_study(
        storage=storage, study_name="search", direction="maximize", load_if_exists=True, pruner=pruner
    )


def _one_trial(search: Search, study: Any, corpus: Corpus, number: int) -> None:
    """A trial that was cut off goes on with its settings from its last committed round: it is paid for once."""
    import optuna

    begun = number < len(study.trials)
    if begun:
        trial, values = None, dict(study.trials[number].params)
        if len(values) < len(search.settings.keys):  # cut off between two of its proposals
            study.tell(number, state=optuna.trial.TrialState.FAIL)
            return
    else:
        # A sampler for each trial, so that a search that was stopped proposes what it would have proposed.
        seed = (search.settings.seed * 1_000_003 + number) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
        trial = study.ask()
        values = {one.key: _propose(trial, one) for one in search.settings.keys}
    started = time.monotonic()
    prunes = search.settings.prune and search.charge is None and trial is not None
    tried = _Trial(search, corpus, number, values, trial if prunes else None)
    value = tried.value()
    seconds = round(time.monotonic() - started, 1)
    write_json(tried.folder / "trial.json", {"number": number, "values": values, "value": value, "seconds": seconds})
    told = ", ".join(f"{key.rpartition('.')[2]} {_short(one)}" for key, one in values.items())
    place = f"trial {number + 1} of {search.trials}: {told}"
    if value is None:
        study.tell(number, state=optuna.trial.TrialState.PRUNED)
        search.say(f"{place}: pruned after {seconds} s")
        return
    study.tell(number, value)
    search.say(f"{place}: {search.settings.metric} {value:.4f}, best {study.best_value:.4f}, {seconds} s")


def _propose(trial: Any, one: Any) -> Value:
    if one.choices:
        proposed: Value = trial.suggest_categorical(one.key, list(one.choices))
    elif isinstance(one.low, int) and isinstance(one.high, int):
        proposed = trial.suggest_int(one.key, one.low, one.high, log=one.log)
    else:
        proposed = trial.suggest_float(one.key, float(one.low), float(one.high), log=one.log)
    return proposed


class _Trial:
    """One training with some settings, in a folder and under a run's name of its own: noise is drawn by that name."""

    def __init__(self, search: Search, corpus: Corpus, number: int, values: dict[str, Value], trial: Any) -> None:
        self._search, self._corpus, self._trial = search, corpus, trial
        self.folder = search.run.folder / "trials" / f"{number:04d}"
        with storage_errors(self.folder):
            make_folders(self.folder)
        self._is_pruned = False
        base = search.run.config
        name = f"{base.name[:50]}-t{number}"
        config = with_values(base, values, name=name)
        if search.charge is None:  # what-if worlds, as the rows of a simulation are
            private = config.private.model_copy(update={"ledger": "pooled"})
            config = config.model_copy(update={"private": private})
        self._run = Run(self.folder, config, search.run.command, search.run.created_at, search.run.commit)

    def value(self) -> float | None:
        """The figure on validation after the last round; None if the trial was pruned."""
        search, row = self._search, self._search.settings.row
        mode = row_mode(row)
        assert mode is not None  # checked by the settings
        context = RowContext(
            replace(search.world, config=self._run.config),
            self._corpus,
            self._run,
            row,
            search.settings.seed,
            self._note,
            lambda: self._is_pruned or search.stop(),
            watches=self._trial is not None,
        )
        federation = federation_of(context, mode, search.account)
        state = federation.run()
        if self._is_pruned:
            return None
        if search.stop():
            raise Stopped
        write_state(federation.model, state)
        recommender = ModelRecommender(federation.model, federation.config.data.max_history)
        metric = search.settings.metric
        if search.charge is None:
            return float(context.sums(recommender, "validation").means()[metric])

        def total() -> float:
            sums = context.sums(recommender, "validation")
            return float(sums.means()[metric] * sums.n_users) if sums.n_users else 0.0

        release = Release(
            search.charge, federation.partners, federation.session.run, self._run.noise_root(), self._corpus.n_trained
        )
        return release.noised_mean(f"{metric}|{state.hash}|{search.world.table.hash}", total)

    def _note(self, event: Json) -> None:
        if event["event"] == "partner_refused":
            self._search.say(f"lost turn: round {event['round']}: {event['partner']}: {event['reason']}")
        if self._trial is None or event["event"] != "round_committed" or not event.get("validation"):
            return
        self._trial.report(event["validation"][self._search.settings.metric], event["round"])
        # The last round's figure is there already: nothing would be saved.
        self._is_pruned = event["round"] < event["rounds"] and self._trial.should_prune()


def _summary(search: Search, study: Any, config: SimulationConfig) -> Json:
    trials = [
        {"number": one.number, "state": one.state.name.lower(), "value": one.value, "values": dict(one.params)}
        for one in study.trials
    ]
    finished = [one for one in trials if one["state"] == "complete"]
    if not finished:
        raise RunError("no trial was finished", "ask for more, or with prune = false")
    best = max(finished, key=lambda one: (one["value"], -one["number"]))
    private = config.for_row(search.settings.row).private
    privacy: Json = {"is_charged": search.charge is not None, "why_free": search.free}
    if search.charge is not None:
        partners = sorted((search.run.folder / "ledger").glob("*.sqlite"))
        privacy |= search.charge.to_dict(len(trials)) | {"spent_epsilon": max(map(_spent, partners))}
    elif is_private(search.settings.row):
        privacy["trial_epsilon"] = private.epsilon
    return {
        "format": FORMAT,
        "name": config.name,
        "row": search.settings.row,
        "metric": search.settings.metric,
        "which": "validation",
        "protocol": config.evaluation.protocol,
        "seed": search.settings.seed,
        "data": config.data.source,
        "data_hash": search.world.table.hash,
        "best": best,
        "overrides": [f"{key}={value}" for key, value in best["values"].items()],
        "trials": trials,
        "privacy": privacy,
        "search": search.settings.model_dump(mode="json"),
        "command": search.run.command,
        "commit": search.run.commit,
        "created_at": search.run.created_at,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(search.run.seconds(), 1),
    }


def _spent(path: Path) -> float:
    from fedrec.privacy.ledger import PrivacyLedger

    return PrivacyLedger(path).spent()[0]


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
