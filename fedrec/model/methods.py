"""How the language model is tuned: each parameter-efficient method by name, as one `match`; LoRA is the default.

Every method's tensors are in PEFT's file. Where PEFT has the method they are PEFT's own; bottlenecks and prompt vectors
are modules of ours, which PEFT saves whole.
"""

from collections.abc import Sequence

import torch
from peft import AdaLoraConfig, LoraConfig
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import Tensor, nn

from fedrec.errors import ModelError
from fedrec.sections.training import MethodName

# rsLoRA's rule divides a constant by the root of the rank; with this one it is LoRA's 2 at a rank of 64.
_RS_ALPHA = 16
# Of AdaLoRA: how many more directions each layer has before the weaker ones are given up.
_SPARE_RANK = 1.5


def tuner_config(method: MethodName, rank: int, backbone: nn.Module, saved: Sequence[str]) -> LoraConfig:
    """PEFT's configuration of a method.

    Args:
        rank: see `AdapterShape`.
        saved: names of the modules that are trained whole.
    """
    transposed = any(type(module).__name__ == "Conv1D" for module in backbone.modules())
    every = {"target_modules": linear_names(backbone), "modules_to_save": list(saved), "fan_in_fan_out": transposed}
    match method:
        case "lora" | "ffa-lora" | "rolora":
            return LoraConfig(r=rank, lora_alpha=2 * rank, **every)
        case "rslora":
            return LoraConfig(r=rank, lora_alpha=_RS_ALPHA, use_rslora=True, **every)
        case "dora":
            return LoraConfig(r=rank, lora_alpha=2 * rank, use_dora=True, **every)
        case "adalora":
            first = round(_SPARE_RANK * rank)
            # How many steps there are is known when training begins: `fedrec.training.rank_budget`.
            return AdaLoraConfig(init_r=first, target_r=rank, lora_alpha=2 * first, total_step=1, **every)
        case "bottleneck" | "prompt":  # nothing but the modules that are trained whole
            return LoraConfig(**{**every, "target_modules": DUMMY_TARGET_MODULES, "fan_in_fan_out": False})


def linear_names(module: nn.Module) -> str:
    """A pattern for the backbone's linear layers (GPT-2 calls them Conv1D)."""
    names = {
        name.rsplit(".", 1)[-1]
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
    }
    return rf"backbone\..*\.({'|'.join(sorted(names))})"


def part_of(name: str, method: MethodName = "lora") -> str:
    """Which part of the adapter a tensor belongs to: prior, head, lora, projection or fixed.

    `lora` is all that a method trains inside the language model. FFA-LoRA leaves A at its public random start, `fixed`;
    RoLoRA has two parts, `lora_a` and `lora_b`, one of which moves in a round.

    >>> part_of("q_proj.lora_A.weight"), part_of("q_proj.lora_A.weight", "ffa-lora")
    ('lora', 'fixed')
    >>> part_of("q_proj.lora_A.weight", "rolora"), part_of("q_proj.lora_B.weight", "rolora")
    ('lora_a', 'lora_b')
    """
    match method:
        case "ffa-lora" if ".lora_A." in name:
            return "fixed"
        case "rolora" if ".lora_A." in name:
            return "lora_a"
        case "rolora" if ".lora_B." in name:
            return "lora_b"
    rules = {".popularity.": "prior", ".score_head.": "head", ".item_emb.": "head", ".lora_": "lora"}
    rules |= {".modality_gate.": "head", ".item_in.": "projection", ".context_in.": "projection"}
    rules |= {".bottleneck.": "lora", ".prompt.": "lora"}
    return next((part for mark, part in rules.items() if mark in name), "fixed")


def members_of(part: str) -> tuple[str, ...]:
    """The adapter's parts that a round of this name trains.

    >>> members_of("head"), members_of("all"), members_of("all_a")
    (('head',), ('head', 'lora', 'projection'), ('head', 'lora_a', 'projection'))
    """
    if part in ("all", "all_a", "all_b"):
        return "head", part.replace("all", "lora"), "projection"
    return (part,)


def part_in_round(part: str, number: int, method: MethodName) -> str:
    """What round `number`, from 0, of a part trains: with RoLoRA B and A in turn, B first, since at B's start of zero A
    has no gradient.

    Reference: Chen et al. 2025, arXiv:2502.01755, Algorithm 1.

    >>> [part_in_round("lora", number, "rolora") for number in range(3)], part_in_round("lora", 1, "ffa-lora")
    (['lora_b', 'lora_a', 'lora_b'], 'lora')
    """
    if method != "rolora" or part not in ("all", "lora"):
        return part
    return f"{part}_{'ba'[number % 2]}"


class Bottleneck(nn.Module):
    """Down to a few numbers, a nonlinearity, and up again, beside what came in; silent at first.

    Reference: Houlsby et al. 2019, arXiv:1902.00751, figure 2; one a block, after its MLP, as in Pfeiffer et al. 2021,
    arXiv:2005.00247.
    """

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, width)
        self.up = nn.Linear(width, hidden_size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden]` -> the same."""
        added = self.up(nn.functional.gelu(self.down(states.to(self.down.weight.dtype))))
        beside: Tensor = states + added.to(states.dtype)
        return beside


class BottleneckedMlp(nn.Module):
    """A block's frozen MLP with a bottleneck after it."""

    def __init__(self, mlp: nn.Module, hidden_size: int, width: int) -> None:
        super().__init__()
        self.mlp = mlp
        self.bottleneck = Bottleneck(hidden_size, width)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden]` -> the same."""
        return self.bottleneck(self.mlp(states))  # type: ignore[no-any-return]


def insert_bottlenecks(backbone: nn.Module, hidden_size: int, width: int) -> None:
    """Put one after the MLP of every block of the backbone, in place.

    Raises: ModelError: a backbone whose blocks have no `mlp`.
    """
    blocks = [block for block in backbone.modules() if isinstance(getattr(block, "mlp", None), nn.Module)]
    if not blocks:
        raise ModelError("the backbone's blocks have no `mlp` for a bottleneck", "choose another shape.method")
    for block in blocks:
        block.mlp = BottleneckedMlp(block.mlp, hidden_size, width)  # type: ignore[arg-type]


def prompt_vectors(word_tokens: Tensor, count: int) -> nn.Embedding:
    """Vectors that are read before a history, each at first like a public item's words (Lester et al. 2021, section 3).

    Args:
        word_tokens: what the language model's own words give for each item, `[items, hidden]`.
    """
    prompt = nn.Embedding(count, word_tokens.shape[1])
    with torch.no_grad():
        prompt.weight.copy_(word_tokens[torch.randint(len(word_tokens), (count,))])
    return prompt
