"""How a task head is trained by rounds, and what a private training promises. Public."""

from dataclasses import dataclass, field

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.privacy.statement import NoiseOrigin
from fedrec.rows import Mode
from fedrec.tasks.head import PART
from fedrec.tasks.training import PlainWork
from fedrec_server.rounds.schedule import RoundSpec


@dataclass(frozen=True)
class TaskRounds:
    """How a head is trained by rounds. Public.

    Attributes:
        rounds: of one question to every partner.
        optimizer: the coordinator's step; under privacy `cool_down` lets the last steps average the noise out.
        work: of a partner; without privacy its learning rate is that of AdamW.
        local_epochs: of an answer without privacy.
        l2_clip_norm, sampling_prob: of a private step, in gradient units and a user's probability.
        range_users: as in `IntegerCode.of`, for masks.
    """

    rounds: int
    optimizer: ServerOptimizer
    work: PlainWork = field(default_factory=PlainWork)
    local_epochs: int = 1
    l2_clip_norm: float = 1.0
    sampling_prob: float = 1.0
    range_users: int = 256

    def schedule(self, expected_users: float | None) -> tuple[RoundSpec, ...]:
        """One entry a round.

        Args:
            expected_users: mean number of users that a partner samples, public: what a private sum is divided by.
        """
        specs = []
        for number in range(self.rounds):
            rate = self.optimizer.server_learning_rate
            rate *= 1.0 if expected_users is None else min(1.0, (1 - number / self.rounds) / 0.3)
            optimizer = ServerOptimizer(self.optimizer.kind, rate, self.optimizer.momentum)
            local = self.work.learning_rate if expected_users is None else 1 / expected_users
            specs.append(RoundSpec(PART, self.local_epochs, 1, local, optimizer))
        return tuple(specs)


@dataclass(frozen=True)
class TaskPromise:
    """What a private training promises, public.

    Attributes:
        mode: `inspect`, or `secagg` under masks.
        noise_source: `seeded` repeats; `secret` has a key that nobody keeps, so that nothing repeats.
    """

    epsilon: float
    delta: float = 1e-4
    mode: Mode = "inspect"
    noise_source: NoiseOrigin = "seeded"
