"""`[scenario]`: what a federation is about: event types and weights, catalogue fields, rules, and what counts."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedrec.sections.section import Count, Section, Share

if TYPE_CHECKING:
    from fedrec.recommend.rules import RuleBook

ScenarioMetric = Literal[
    "value",
    "coverage",
    "novelty",
    "miscalibration",
    "categories",
    "familiar",
    "provider_gini",
    "age_days",
    "policy_value",
]
"""What may be told beside HR and NDCG; docs/scenarios.md has each in a line."""


class EventConfig(Section):
    """One type of event: `cart = {weight = 3.0, means = "put into the basket"}`."""

    weight: Annotated[float, Field(ge=-100, le=100)]
    means: str = ""


class ScenarioConfig(Section):
    """`[scenario]`; without it a run takes every row of the data as a positive.

    Attributes:
        events: by the name that the data give it; each of the data's must be there.
        positive_from: what the weights of a user's events with an item must come to.
        fields: of the catalogue, which rules may read.
        provider: of `fields`, who made an item; exposure is told by it.
        partners_by: label of users by which they are dealt to partners; empty: at random.
        shares: of the users, by partner; none: one partner for each value of the label, or all alike.
        rules: as `[[rules]]` of a service's `rules.toml` (docs/serving.md).
        calibration: 0..1, as of a service: how far a list's share of popular items follows the history's.
        lists: of so many users rules are told how often they acted.
    """

    domain: Annotated[str, Field(min_length=1)]
    events: Annotated[dict[str, EventConfig], Field(min_length=1)]
    positive_from: Annotated[float, Field(gt=0)] = 1.0
    fields: tuple[str, ...] = ()
    provider: str = ""
    partners_by: str = ""
    shares: tuple[Share, ...] = ()
    metrics: tuple[ScenarioMetric, ...] = ("value", "coverage", "novelty")
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.0
    lists: Count = 300
    rules: tuple[dict[str, Any], ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Of each type of event."""
        return {name: event.weight for name, event in self.events.items()}

    def book(self) -> "RuleBook":
        """The rules, as a service reads them."""
        # Here and not above: whoever reads a configuration without rules, as a coordinator does, needs no CEL.
        from fedrec.recommend.rules import RuleBook

        return RuleBook.model_validate({"rules": self.rules})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        if self.shares and abs(sum(self.shares) - 1) > 1e-6:
            problems.append(f"shares add up to {sum(self.shares):g}, not to 1")
        if self.provider and self.provider not in self.fields:
            problems.append(f"provider {self.provider!r} is none of fields")
        needing = {"familiar", "provider_gini"} & set(self.metrics)
        if needing and not self.provider:
            problems.append(f"metrics {', '.join(sorted(needing))} want a provider")
        if not any(event.weight >= self.positive_from for event in self.events.values()):
            problems.append(f"no event reaches positive_from {self.positive_from:g}")
        if self.rules:
            try:
                problems += self._unknown_fields()
            except ValidationError as error:
                problems += [
                    f"{'.'.join(map(str, item['loc']))}: {str(item['msg']).removeprefix('Value error, ')}"
                    for item in error.errors()
                ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unknown_fields(self) -> list[str]:
        """Fields that rules read and the scenario does not name."""
        from fedrec.recommend.expression import parse, reads

        problems = []
        for rule in self.book().rules:
            read = reads(parse(rule.where, rule.name)) if rule.where else ()
            named = {name.removeprefix("item.") for name in read if name.startswith("item.")}
            named |= {rule.field} if rule.field else set()
            problems += [f"rule {rule.name}: {name!r} is none of fields" for name in sorted(named - {*self.fields})]
        return problems
