"""What each round of a training asks for."""

from dataclasses import dataclass

from fedrec.aggregation.server_optimizer import ServerOptimizer


@dataclass(frozen=True)
class RoundSpec:
    """One entry of a schedule. Public.

    Attributes:
        part: which tensors the round moves.
        local_epochs, local_steps, learning_rate: the partners' work.
        optimizer: the coordinator's step with the mean.
    """

    part: str
    local_epochs: int
    local_steps: int
    learning_rate: float
    optimizer: ServerOptimizer
