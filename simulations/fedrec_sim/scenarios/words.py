"""A scenario's figures and rules in words: for the report, the terminal and docs/scenarios.md."""

from collections.abc import Mapping
from types import MappingProxyType

from rich.table import Table

from fedrec_sim.run import Json

METRIC_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "value": "found share of what the held-out items counted, by the weights of their events: a hit on a "
        "strong one is worth more",
        "coverage": "share of the catalogue on anybody's list",
        "novelty": "mean surprise of what is listed, bits: 1 more is half as popular",
        "miscalibration": "mean divergence of a list's categories from the history's, nats: 0 is the same mixture",
        "categories": "different categories on a list",
        "familiar": "share of places whose provider is in the history already",
        "provider_gini": "how unequally providers are exposed: 0 all alike, near 1 one alone",
        "age_days": "median age of what is listed, days",
        "policy_value": "clicks a showing, had the log's visitors been shown an item of their list: estimated (SNIPS) "
        "from rows of a uniform policy that no history holds, with the standard error of those rows",
    }
)
"""What a figure beside HR and NDCG says."""

_PERCENT = ("value", "coverage", "familiar")
_REPEATED = ("hr@10", "ndcg@10")


def metrics_of(scenario: Json) -> list[str]:
    """Figures that every row has, HR and NDCG first; standard errors go with what they are of."""
    row = next(iter(scenario["rows"].values()))["plain"]
    return [*_REPEATED, *(name for name in METRIC_WORDS if name in row)]


def in_figures(value: float, metric: str) -> str:
    """One figure, in its own digits."""
    if metric in _PERCENT:
        return f"{100 * value:.1f}%"
    if metric == "policy_value":
        return f"{100 * value:.2f}%"
    return f"{value:.4f}" if metric in _REPEATED else f"{value:.2f}"


def rule_words(rule: Json) -> str:
    """What a rule does to which items, for whom."""
    what = [
        f'"{rule["category"]}"' if rule.get("category", "*") != "*" else "each category" if "category" in rule else ""
    ]
    what += [rule.get("where", ""), _by_field(rule), ", ".join(rule.get("items", ()))]
    about = " and ".join(part for part in what if part)
    match rule["action"]:
        case "boost" | "bury":
            done = f"{rule['action']} by {rule['amount']:g} nats:"
        case "quota":
            share = f"{rule['share']:.0%} of the list" if "share" in rule else ""
            done = f"at most {rule.get('limit', share)} of"
        case "filter":
            done = "only"
        case other:
            done = other
    whom = " and ".join(f"{name} = {_said(value)}" for name, value in rule.get("segment", {}).items())
    return f"{done} {about}" + (f", for {whom}" if whom else "")


def _by_field(rule: Json) -> str:
    bounds = (("equals", "="), ("at_least", ">="), ("at_most", "<="))
    parts = [f"{rule['field']} {sign} {_said(rule[key])}" for key, sign in bounds if key in rule]
    return " and ".join(parts)


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def scenario_table(summary: Json) -> Table:
    """The scenario's figures, for the terminal."""
    scenario = summary["scenario"]
    metrics = metrics_of(scenario)
    told = f"{summary['name']}: figures of the scenario, {scenario['made'] or 'real data'}"
    table = Table("row", "lists", *metrics, title=told, title_justify="left")
    for name, row in scenario["rows"].items():
        for way, said in (("plain", "by score"), ("ruled", "with rules")):
            table.add_row(name, said, *(in_figures(row[way][metric], metric) for metric in metrics))
    return table
