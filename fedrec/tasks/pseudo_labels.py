"""Rows whose answer nobody gave, labelled by the head itself where it is sure: semi-supervised, within a partner.

References: Lee 2013, "Pseudo-Label"; Sohn et al. 2020, arXiv:2001.07685 (FixMatch: hard labels above a threshold,
made anew by the current model). There, two views of a row keep the model from agreeing with itself; rows of frozen
inputs have one view alone.
"""

from dataclasses import dataclass, replace

import numpy as np

from fedrec.errors import ConfigError
from fedrec.tasks.examples import TaskExamples
from fedrec.tasks.head import TaskHead, score_rows
from fedrec.tasks.task import Task


@dataclass(frozen=True)
class PseudoLabels:
    """When a head's own word counts, and how much. Public.

    Attributes:
        threshold: least probability of the likelier answer, 0.5 or more and below 1.
        weight: of such a row beside one with an answer, above 0 and at most 1.
    Raises: ConfigError: naming every number out of range.
    """

    threshold: float
    weight: float

    def __post_init__(self) -> None:
        problems = [] if 0.5 <= self.threshold < 1 else ["threshold must be 0.5 or more, and below 1"]
        problems += [] if 0 < self.weight <= 1 else ["weight must be above 0, and at most 1"]
        if problems:
            raise ConfigError.of_all(problems, "see docs/labels.md", "pseudo-labels")


def pseudo_labelled(examples: TaskExamples, head: TaskHead, task: Task, settings: PseudoLabels) -> TaskExamples:
    """The examples, where rows of weight 0 have the answer of which the head is sure; the others stay without.

    Args:
        head: with the round's adapter, which is public to partners.
    Raises: ConfigError: the task is not one of yes or no.
    Privacy: a row's label is a function of the public adapter and of this row alone, so a user's labelled and
        pseudo-labelled rows are one user's say, clipped as one. Nothing is fitted over users here: a threshold or a
        share of likes that follows a partner's rows would let one user move another's gradient. Labels never leave.
    """
    if task.name != "click":
        raise ConfigError(f"pseudo-labels are of the click task, not of {task.name}", "leave --pseudo-labels out")
    said = task.predictions(score_rows(head, examples.inputs))
    is_sure = (examples.weights == 0) & (np.maximum(said, 1 - said) >= settings.threshold)
    targets = np.where(is_sure, said >= 0.5, examples.targets).astype(np.float32)
    weights = np.where(is_sure, settings.weight, examples.weights).astype(np.float32)
    return replace(examples, targets=targets, weights=weights)
