"""What everybody agrees on before a head's first round: task, shape, inputs and first weights. Public."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fedrec.errors import ModelError
from fedrec.model.adapter import AdapterSpec, AdapterState
from fedrec.tasks.head import HeadShape, TaskHead, head_spec, head_state
from fedrec.tasks.item_part import ITEMS, TENSOR, ItemPart
from fedrec.tasks.pseudo_labels import PseudoLabels
from fedrec.tasks.task import Task
from fedrec.tasks.taste import PublicTaste


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
        pseudo: labels that the head gives to rows without an answer; None: those rows are not read.
        items, n_items: what partners find out about each item before the head is trained, and how many there are;
            None where nothing is asked about items.
        user_is: what plays a user's part where rows name no people, say "one text"; None: a person. The statement says.
    Raises: ModelError: shape, task and first weights do not fit each other.
    """

    task: Task
    shape: HeadShape
    initial: AdapterState = field(repr=False)
    inputs: str
    inputs_hash: str
    catalog_hash: str = ""
    public_data: str | None = None
    items: ItemPart | None = None
    n_items: int = 0
    pseudo: PseudoLabels | None = None
    user_is: str | None = None

    def __post_init__(self) -> None:
        if self.shape.outputs != self.task.outputs:
            raise ModelError(
                f"a head of {self.shape.outputs} scores for a task of {self.task.outputs}", "mend its shape"
            )
        self.initial.check(self._head_spec)

    @classmethod
    def fresh(
        cls,
        task: Task,
        width: int,
        *,
        inputs: str,
        inputs_hash: str,
        hidden: int = 0,
        seed: int = 0,
        user_is: str | None = None,
    ) -> "TaskTerms":
        """A head that says the same of every input: nothing was learnt yet."""
        shape = HeadShape(width, task.outputs, hidden)
        return cls(task, shape, head_state(TaskHead(shape, seed)), inputs, inputs_hash, user_is=user_is)

    @cached_property
    def spec(self) -> AdapterSpec:
        """What a coordinator checks answers against."""
        if self.items is None:
            return self._head_spec
        return replace(self._head_spec, parts={**self._head_spec.parts, ITEMS: {TENSOR: (2, self.n_items)}})

    @cached_property
    def start(self) -> AdapterState:
        """The first adapter: the head's first weights, and nothing known about items."""
        if self.items is None:
            return self.initial
        return AdapterState({**self.initial.tensors, TENSOR: np.zeros((2, self.n_items), np.float32)})

    @property
    def _head_spec(self) -> AdapterSpec:
        return head_spec(self.shape, self.inputs, self.inputs_hash, self.catalog_hash)

    def corrected(self, taste: PublicTaste, state: AdapterState) -> PublicTaste:
        """The taste as an adapter corrects it; as it is where nothing is asked about items."""
        return taste if self.items is None else self.items.corrected(taste, state.tensors[TENSOR])
