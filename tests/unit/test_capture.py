"""The capture in the layers against autograd with one user at a time, and against Opacus as it comes."""

from collections.abc import Callable

import pytest
import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.privacy.capture import UserGradSampleHooks
from fedrec.privacy.gradients import per_user_gradients

USERS, POSITIONS, WIDTH = 7, 5, 6


class Residual(nn.Module):
    """A LoRA-like branch beside a frozen layer, used twice in one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        for _ in range(2):
            inputs = self.base(inputs) + self.up(self.down(inputs)).tanh()
        return inputs


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "flat": (lambda: nn.Linear(WIDTH, 3), (WIDTH,)),
    "no bias": (lambda: nn.Linear(WIDTH, 3, bias=False), (WIDTH,)),
    "sequence": (lambda: nn.Linear(WIDTH, 3), (POSITIONS, WIDTH)),
    "narrow to wide": (lambda: nn.Linear(WIDTH, 40), (POSITIONS, WIDTH)),
    "four dimensions": (lambda: nn.Linear(WIDTH, 3), (2, POSITIONS, WIDTH)),
    "bias alone": (lambda: frozen_weight(nn.Linear(WIDTH, 3)), (POSITIONS, WIDTH)),
    "LoRA used twice": (Residual, (POSITIONS, WIDTH)),
    "deep": (lambda: nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 2)), (POSITIONS, WIDTH)),
}


def frozen_weight(layer: nn.Linear) -> nn.Linear:
    layer.weight.requires_grad_(False)
    return layer


@pytest.fixture(params=MODELS, name="case")
def make_case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = MODELS[request.param]
    torch.manual_seed(4)
    return make(), torch.randn(USERS, *shape)


def losses_of(model: nn.Module, rows: Tensor) -> Tensor:
    return model(rows).square().flatten(1).sum(1)


def oracle(model: nn.Module, rows: Tensor, user_of_row: Tensor, n_users: int) -> list[Tensor]:
    """One user at a time, plain autograd; `[users, ...]` for each trained tensor."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = []
    for user in range(n_users):
        mine = rows[user_of_row == user]
        loss = losses_of(model, mine).sum()
        grads.append(torch.autograd.grad(loss, parameters) if len(mine) else [torch.zeros_like(p) for p in parameters])
    return [torch.stack(of_tensor) for of_tensor in zip(*grads, strict=True)]


def captured(model: nn.Module, rows: Tensor, user_of_row: Tensor | None = None, n_users: int = 0) -> list[Tensor]:
    with per_user_gradients(model) as capture:
        if user_of_row is not None:
            capture.users_of_rows(user_of_row, n_users)
        losses_of(model, rows).sum().backward()
        return [p.grad_sample for p in model.parameters() if p.requires_grad]  # type: ignore[attr-defined]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """1e-5 relative, of each user's gradient in each tensor."""
    assert len(found) == len(expected) > 0
    for mine, right in zip(found, expected, strict=True):
        assert mine.shape == right.shape
        error = (mine - right).flatten(1).norm(dim=1)
        assert bool((error <= 1e-5 * right.flatten(1).norm(dim=1)).all())


def test_every_layer_type_equals_one_user_at_a_time(case: tuple[nn.Module, Tensor]) -> None:
    model, rows = case
    assert_equal(captured(model, rows), oracle(model, rows, torch.arange(USERS), USERS))


def test_several_rows_of_a_user_are_one_gradient(case: tuple[nn.Module, Tensor]) -> None:
    """User 3 has no row: a zero gradient, not a missing one."""
    model, rows = case
    user_of_row = torch.tensor([0, 2, 0, 1, 2, 0, 4])
    assert_equal(captured(model, rows, user_of_row, 5), oracle(model, rows, user_of_row, 5))


def test_nothing_is_left_behind(case: tuple[nn.Module, Tensor]) -> None:
    """The gradient of the sum is not computed, and afterwards the model is as it was."""
    model, rows = case
    captured(model, rows)
    assert all(p.grad is None and not hasattr(p, "grad_sample") for p in model.parameters())
    losses_of(model, rows).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_opacus_optimizer_takes_the_same_step_on_both_captures() -> None:
    """DPOptimizer unchanged, the same generator: equal weights after two accumulated backward passes and a step."""
    ends = []
    for make_hooks in (lambda m: GradSampleHooks(m, loss_reduction="sum"), UserGradSampleHooks):
        torch.manual_seed(4)
        model, rows = nn.Sequential(nn.Linear(WIDTH, 4), nn.Linear(4, 2)), torch.randn(USERS, WIDTH)
        hooks = make_hooks(model)
        optimizer = DPOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1),
            noise_multiplier=0.5,
            max_grad_norm=0.3,
            expected_batch_size=None,
            loss_reduction="sum",
            generator=torch.Generator().manual_seed(1),
        )
        for part in (rows[:4], rows[4:]):
            losses_of(model, part).sum().backward()
        optimizer.step()
        hooks.cleanup()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1])


def test_a_pass_without_gradients_or_in_evaluation_is_not_captured() -> None:
    model, rows = nn.Linear(WIDTH, 3), torch.randn(USERS, WIDTH)
    with per_user_gradients(model):
        with torch.no_grad():
            model(rows)
        model.eval()
        losses_of(model, rows).sum().backward()
        assert model.weight.grad_sample is None
        model.train()
        losses_of(model, rows).sum().backward()
        assert model.weight.grad_sample.shape == (USERS, 3, WIDTH)  # type: ignore[attr-defined]


def test_no_user_is_a_gradient_of_no_rows() -> None:
    model = nn.Linear(WIDTH, 3)
    assert [g.shape for g in captured(model, torch.zeros(0, POSITIONS, WIDTH))] == [(0, 3, WIDTH), (0, 3)]


def test_an_embedding_gives_each_user_the_whole_table() -> None:
    table = nn.Embedding(5, 3)
    indices = torch.tensor([[0, 1, 1], [4, 0, 2]])
    weights = torch.randn(2, 3, 3)
    with per_user_gradients(nn.Sequential(table)):
        (table(indices) * weights).sum(dim=(1, 2)).sum().backward()
        found = table.weight.grad_sample  # type: ignore[attr-defined]
    alone = []
    for user in range(2):
        table.weight.grad = None
        (table(indices[user : user + 1]) * weights[user : user + 1]).sum().backward()
        assert table.weight.grad is not None
        alone.append(table.weight.grad.clone())
    torch.testing.assert_close(found, torch.stack(alone))


@pytest.mark.parametrize("layer", [nn.Bilinear(2, 2, 2), nn.LayerNorm(WIDTH), nn.Conv1d(2, 2, 1)])
def test_other_trained_layers_are_refused(layer: nn.Module) -> None:
    with pytest.raises(PrivacyError, match=type(layer).__name__), per_user_gradients(nn.Sequential(layer)):
        pass


def test_an_error_inside_gives_the_layers_back() -> None:
    model = nn.Linear(WIDTH, 3)
    with pytest.raises(RuntimeError), per_user_gradients(model):
        raise RuntimeError
    assert "forward" not in vars(model)
