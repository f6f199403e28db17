"""The study as JSON, two plots, and the tables of docs/causal.md: no figure there is typed by hand."""

from pathlib import Path

from fedrec.data.open_bandit import CAMPAIGNS
from fedrec.errors import ConfigError
from fedrec.evaluation.off_policy import ESTIMATORS
from fedrec.files import read_file
from fedrec_sim.causal.popular import FLOORS, POWERS
from fedrec_sim.figures import in_time
from fedrec_sim.plots import Estimated, plot_estimates, standalone
from fedrec_sim.run import Json, write_bytes, write_json

NAME = "causal"
BEGIN, END = "<!-- causal: begin -->", "<!-- causal: end -->"
_SAID = {
    "random_to_bts": "What Thompson sampling earns, from the rows of the uniform policy",
    "bts_to_random": "What the uniform policy earns, from the rows of Thompson sampling",
}
_MODELS = {"small": "one number of an item", "features": "the item's categories too"}


def publish_study(found: Json, folder: Path) -> list[Path]:
    """Write `causal.json`, a plot for each direction, and the tables between the marks of `causal.md`.

    Raises: ConfigError: the page has no marks. StorageError: the disk refuses.
    """
    page = folder / f"{NAME}.md"
    before, after = around_tables(folder)
    figures = folder / f"{NAME}.json"
    write_json(figures, found)
    plots = [folder / f"{NAME}-{direction.replace('_', '-')}.svg" for direction in _SAID]
    for direction, path in zip(_SAID, plots, strict=True):
        write_bytes(path, standalone(_plot(found, direction)).encode())
    write_bytes(page, f"{before}{BEGIN}\n{section(found)}\n{END}{after}".encode())
    return [figures, *plots, page]


def around_tables(folder: Path) -> tuple[str, str]:
    """What stands before and after the tables in `causal.md`. Raises ConfigError: no marks. RunError: no page."""
    page = folder / f"{NAME}.md"
    before, opened, rest = read_file(page).decode().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (opened and closed):
        raise ConfigError(f"{page}: no place for the study", f"write {BEGIN} and {END} where it shall stand")
    return before, after


def section(found: Json) -> str:
    """All tables, and what is needed to repeat them."""
    facts = [
        f"{found['rows']:,} rows in all, {sum(found['clicks'].values())} of them clicks; intervals are percentiles of "
        f"{found['replicates']:,} resamplings of rows (of users for MovieLens-100K); seed {found['seed']}",
        f"{in_time(found['seconds'])} in all; commit {found['commit']}, `{found['command']}`; all figures in "
        f"[{NAME}.json]({NAME}.json)",
    ]
    parts = [_values(found, direction) for direction in _SAID]
    parts += [_made(found), _training(found), _popularity(found)]
    return "\n\n".join([*parts, "\n".join(f"- {fact}" for fact in facts)])


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


def _values(found: Json, direction: str) -> str:
    of = found["values"][direction]
    rows = [("", *CAMPAIGNS, "mean of the three", "error", "closer than naive")]
    truths = [of["campaigns"][c]["truth"] for c in CAMPAIGNS]
    shown = [f"{_rate(one['click_rate'])} ± {_rate(one['margin'])}" for one in truths]
    rows.append(("truth, whole log", *shown, _rate(of["pooled"]["truth"]), "", ""))
    sample = [of["campaigns"][c]["truth_in_sample"] for c in CAMPAIGNS]
    rows.append(("on-policy in the sample", *(_interval(one, "click_rate") for one in sample), "", "", ""))
    for name in ESTIMATORS:
        cells = [of["campaigns"][c]["estimates"][name] for c in CAMPAIGNS]
        pooled = of["pooled"]["estimates"][name]
        rows.append(
            (
                f"`{name}`",
                *(_interval(one) + ("*" if one["doubts"] else "") for one in cells),
                _interval(pooled) + ("" if pooled["covers_truth"] else " **misses**"),
                f"{pooled['mean_relative_error']:.0%}",
                "" if name == "naive" else f"{pooled['campaigns_closer']} of 3, {pooled['closer_than_naive']:.0%}",
            )
        )
    return (
        f"### {_SAID[direction]}\n\n{_table(*rows)}\n\n![The same as a plot](causal-{direction.replace('_', '-')}.svg)"
    )


def _made(found: Json) -> str:
    rows = [
        ("rows of a made log", "estimator", "bias", "root mean square error", "interval covers", "closer than naive")
    ]
    parts = []
    for direction, said in _SAID.items():
        lines = list(rows)
        for size in _sizes(found["made"][direction]):
            for name in ESTIMATORS:
                of = found["made"][direction][size][name]
                cells = (f"{of['bias']:+.1%}", f"{of['rmse']:.1%}", f"{of['interval_covers']:.0%}")
                lines.append((f"{int(size):,}", f"`{name}`", *cells, f"{of['closer_than_naive']:.0%}"))
        parts.append(f"{said}, made:\n\n{_table(*lines)}")
    return "### Made logs, whose truth is known\n\n" + "\n\n".join(parts)


def _training(found: Json) -> str:
    rows = [("campaign", "log loss, plain", "weighted", "less by", "AUC, plain", "weighted", "effective rows")]
    for campaign in CAMPAIGNS:
        of = found["training"]["campaigns"][campaign]
        plain, weighted = of["plain"], of["weighted"]
        rows.append(
            (
                campaign,
                f"{plain['log_loss']:.5f}",
                f"{weighted['log_loss']:.5f}",
                _share(of["gain"]),
                f"{plain['auc']:.3f}",
                f"{weighted['auc']:.3f}",
                f"{weighted['effective_rows']:,.0f}",
            )
        )
    rows.append(("all three", "", "", _share(found["training"]["pooled_gain"]), "", "", ""))
    made: list[tuple[str, ...]] = [
        ("model knows", "rows of a made log", "divergence from the truth, plain", "weighted", "weights win")
    ]
    for model, said in _MODELS.items():
        for size in _sizes(found["made_training"][model]):
            of = found["made_training"][model][size]
            pair = (of["divergence"]["plain"], of["divergence"]["weighted"])
            cells = tuple(f"{1e6 * value:.0f}" for value in pair)
            made.append((said, f"{int(size):,}", *cells, f"{of['weighted_closer']:.0%} of {of['logs']} logs"))
    text = f"### Training with propensities\n\n{_table(*rows)}\n\nMade logs, in millionths of a nat a row:\n\n"
    return text + _table(*made)


def _popularity(found: Json) -> str:
    of = found["popularity"]
    heads = [f"{name}, power {power:.2f}" for name, power in zip(POWERS, _by_power(of["powers"]), strict=True)]
    rows = [("HR@10", *heads, "kept"), *_ranked(of, "hr@10"), ("NDCG@10", *heads, "kept"), *_ranked(of, "ndcg@10")]
    effective = ", ".join(f"{users:.0f}" for users in _by_power(of["effective_users"]))
    adapter = f"; the adapter is run `{of['run']}`'s" if of["run"] else ""
    return (
        f"### Popularity taken out, {of['data']}, protocol {of['protocol']} ({of['which']}), seed {of['seed']}\n\n"
        f"{_table(*rows)}\n\n{of['users']} users; effective users by power: {effective}{adapter}."
    )


def _ranked(of: Json, figure: str) -> list[tuple[str, ...]]:
    return [
        (
            f"`{row}`",
            *(_interval(cells[figure][name], digits=4) for name in POWERS),
            f"{cells[figure]['kept']:.0%}",
        )
        for row, cells in ((row, of["rows"][row]) for row in (*FLOORS, "adapter") if row in of["rows"])
    ]


def _sizes(by_size: Json) -> list[str]:
    """In the order of rows: JSON keeps none."""
    return sorted(by_size, key=int)


def _by_power(figures: Json) -> list[float]:
    return [figures[name] for name in POWERS]


def _rate(value: float) -> str:
    return f"{100 * value:.3f}%"


def _interval(one: Json, key: str = "value", digits: int | None = None) -> str:
    def shown(value: float) -> str:
        return f"{100 * value:.2f}" if digits is None else f"{value:.{digits}f}"

    return f"{shown(one[key])} [{shown(one['low'])}, {shown(one['high'])}]"


def _share(one: Json) -> str:
    return f"{one['value']:+.1%} [{one['low']:+.1%}, {one['high']:+.1%}]"


def _plot(found: Json, direction: str) -> str:
    of = found["values"][direction]
    parts = of["campaigns"]
    groups: list[tuple[str, float, list[Estimated]]] = [
        (c, part["truth"]["click_rate"], _estimated(part["estimates"]))
        for c, part in ((c, parts[c]) for c in CAMPAIGNS)
    ]
    groups.append(("mean", of["pooled"]["truth"], _estimated(of["pooled"]["estimates"])))
    alt = f"{_SAID[direction]}: estimates with 95% intervals beside the truth, by campaign"
    return plot_estimates(groups, xlabel="click rate", name=f"{NAME}-{direction}", alt=alt)


def _estimated(estimates: Json) -> list[Estimated]:
    found = ((name, estimates[name]) for name in ESTIMATORS)
    return [Estimated(name, one["value"], one["low"], one["high"]) for name, one in found]
