"""`[tracking]`: which experiment trackers are told of a run."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from fedrec.sections.section import Section

TrackerName = Literal["mlflow", "tensorboard", "wandb"]


def _once_each(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    if len(set(names)) != len(names):
        raise ValueError("name each tracker once")
    return names


class TrackingConfig(Section):
    """`[tracking]`: told of every round, beside events.jsonl and the report; all stay in the run's folder."""

    to: Annotated[tuple[TrackerName, ...], AfterValidator(_once_each)] = ()
