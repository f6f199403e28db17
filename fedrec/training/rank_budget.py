"""AdaLoRA's allocation of rank to layers, by PEFT's own allocator, within one partner's work of one round. Not private.

The paper allocates once over a whole training. Here each partner begins a round with every direction of every layer
open and ends it at the budget, by its own users' gradients; a direction that was given up may come back in a later
round, and the mean of several partners' choices may keep more of them than the budget of one.

Reference: Zhang et al. 2023, arXiv:2303.10512, Algorithm 1.
"""

from collections.abc import Iterable

import torch
from peft import AdaLoraConfig, PeftModel
from peft.tuners.adalora.layer import RankAllocator
from torch import nn

from fedrec.model.recommender import adapter_parameters

_NAME = "default"


class RankBudget:
    """The allocation over so many steps; without a word where the method is another one, or the LLM stands still.

    Args:
        names: adapter tensors that are trained.
        steps: of this partner in this round.
    """

    def __init__(self, model: PeftModel, names: Iterable[str], steps: int) -> None:
        config, parameters = model.peft_config[_NAME], adapter_parameters(model)
        self._tuner, self._steps, self._weight = model.base_model, steps, 0.0
        self._bases: list[tuple[str, nn.Parameter]] = []
        if isinstance(config, AdaLoraConfig) and any(".lora_E" in name for name in names):
            config.total_step, config.rank_pattern, self._weight = max(1, steps), None, config.orth_reg_weight
            # Afresh: what an allocator remembers is of other users.
            self._tuner.rankallocator = RankAllocator(self._tuner.model, config, _NAME)
            self._bases = [(name, p) for name, p in parameters.items() if name.endswith((".lora_A", ".lora_B"))]

    def penalise(self) -> None:
        """Add to the gradients of a step: by how far each layer's directions are from being orthogonal, weighted."""
        if not self._bases:
            return
        # A holds directions in rows, B in columns.
        rows = [base if name.endswith("A") else base.T for name, base in self._bases]
        apart = [torch.linalg.matrix_norm(one @ one.T - torch.eye(len(one), device=one.device)) for one in rows]
        (self._weight * torch.stack(apart).mean()).backward()  # type: ignore[no-untyped-call]  # torch's own

    def after_step(self, number: int) -> None:
        """Look at the gradients of step `number`, from 1, and give up the weakest directions."""
        if self._bases:
            if self._steps == 1:  # PEFT looks at all steps but the last
                self._tuner.rankallocator.update_ipt(self._tuner.model)
            self._tuner.update_and_allocate(number)
            if number == self._steps:
                # Given-up directions stay in the tensors, as zeros: shapes are the federation's.
                self._tuner.peft_config[_NAME].rank_pattern = None
