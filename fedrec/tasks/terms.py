"""What everybody agrees on before a head's first round: task, shape, inputs and first weights. Public."""

from dataclasses import dataclass, field
from functools import cached_property

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterSpec, AdapterState
from fedrec.tasks.head import HeadShape, TaskHead, head_spec, head_state
from fedrec.tasks.task import Task


@dataclass(frozen=True)
class TaskTerms:
    """A head before training.

    Attributes:
        task, shape: what is learnt, and by what.
        initial: first weights; from a public seed or public data, never from a partner's rows.
        inputs: in words, what makes the inputs.
        inputs_hash: identity of that recipe, and of the frozen models and public data behind it.
        catalog_hash: of the items, where there are any.
        public_data: names published data that recipe or first weights come from; the statement names them.
    Raises: ModelError: shape, task and first weights do not fit each other.
    """

    task: Task
    shape: HeadShape
    initial: AdapterState = field(repr=False)
    inputs: str
    inputs_hash: str
    catalog_hash: str = ""
    public_data: str | None = None

    def __post_init__(self) -> None:
        if self.shape.outputs != self.task.outputs:
            raise ModelError(
                f"a head of {self.shape.outputs} scores for a task of {self.task.outputs}", "mend its shape"
            )
        self.initial.check(self.spec)

    @classmethod
    def fresh(
        cls, task: Task, width: int, *, inputs: str, inputs_hash: str, hidden: int = 0, seed: int = 0
    ) -> "TaskTerms":
        """A head that says the same of every input: nothing was learnt yet."""
        shape = HeadShape(width, task.outputs, hidden)
        return cls(task, shape, head_state(TaskHead(shape, seed)), inputs, inputs_hash)

    @cached_property
    def spec(self) -> AdapterSpec:
        """What a coordinator checks answers against."""
        return head_spec(self.shape, self.inputs, self.inputs_hash, self.catalog_hash)
