"""How a task head is trained by rounds, and what a private training promises. Public."""

from dataclasses import dataclass, field

from fedrec.aggregation.server_optimizer import ServerOptimizer
from fedrec.privacy.plan import PartShare
from fedrec.privacy.statement import NoiseOrigin
from fedrec.rows import Mode
from fedrec.tasks.head import PART
from fedrec.tasks.item_part import ITEMS, ItemPart
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
        items_share: of the budget, for what is asked about items first, where something is.
    """

    rounds: int
    optimizer: ServerOptimizer
    work: PlainWork = field(default_factory=PlainWork)
    local_epochs: int = 1
    l2_clip_norm: float = 1.0
    sampling_prob: float = 1.0
    range_users: int = 256
    items_share: float = 0.7

    def schedule(self, expected_users: float, *, private: bool, items: bool) -> tuple[RoundSpec, ...]:
        """One entry a round, what is asked about items first.

        Args:
            expected_users: mean number of users that a partner samples, public: what a sum is divided by.
        """
        average = ServerOptimizer("sgd", 1.0, 0.0)
        specs = [RoundSpec(ITEMS, 1, 1, 1 / expected_users, average)] if items else []
        for number in range(self.rounds):
            rate = self.optimizer.server_learning_rate
            rate *= min(1.0, (1 - number / self.rounds) / 0.3) if private else 1.0
            optimizer = ServerOptimizer(self.optimizer.kind, rate, self.optimizer.momentum)
            local = 1 / expected_users if private else self.work.learning_rate
            specs.append(RoundSpec(PART, self.local_epochs, 1, local, optimizer))
        return tuple(specs)

    def parts(self, items: ItemPart | None) -> list[PartShare]:
        """What a privacy plan is calibrated for."""
        left = 1.0 if items is None else 1.0 - self.items_share
        parts = [] if items is None else [(ITEMS, 1, 1.0, items.l2_clip_norm, self.items_share)]
        return [*parts, (PART, self.rounds, self.sampling_prob, self.l2_clip_norm, left)]


@dataclass(frozen=True)
class TaskPromise:
    """What a private training promises, public.

    Attributes:
        mode: `inspect`, or `secagg` under masks.
        noise_source: `seeded` repeats; `secret` has a key that nobody keeps, so that nothing repeats.
        quorum: answers that a round needs; 0: those of all partners.
        dishonest: of them may add no noise and tell all they know: it is sized for the others. Of `secagg` alone.
        spare: steps of each part beyond its rounds, for attempts that fail. Of `secagg` alone.
    """

    epsilon: float
    delta: float = 1e-4
    mode: Mode = "inspect"
    noise_source: NoiseOrigin = "seeded"
    quorum: int = 0
    dishonest: int = 0
    spare: int = 0
