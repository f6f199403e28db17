"""What cannot be private is refused with its reason, before a row is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from fedrec.errors import PrivacyError
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.recommender import AdapterShape, build_model, item_token_model
from fedrec.privacy.plan import PartPlan, PrivacyPlan
from fedrec.privacy.refusals import refuse_mixing, refuse_unprivate
from fedrec.training.local import PlainSettings, refuse_private_training
from fedrec_client.worker import PartnerData, Worker

# PEFT asks transformers for a name that is about to go.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def peft_model(folder: Path, config: Any) -> nn.Module:
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)


def refuse(model: nn.Module) -> None:
    refuse_unprivate(model, [p for p in model.parameters() if p.requires_grad])


def test_plain_lora_passes(tiny_llama: Path) -> None:
    refuse(peft_model(tiny_llama, LoraConfig(r=2, target_modules=["q_proj"])))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LoraConfig(r=2, target_modules=["q_proj"], use_dora=True), "DoRA trains magnitudes"),
        (AdaLoraConfig(target_modules=["q_proj"], total_step=9, tinit=1, tfinal=1), "AdaLoRA moves rank"),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PROMPT_TUNING has no per-user"),
        (LoraConfig(r=2, target_modules=["embed_tokens"]), "adapter on an embedding"),
    ],
)
def test_adapters_that_cannot_be_private(tiny_llama: Path, config: Any, reason: str) -> None:
    with pytest.raises(PrivacyError, match=reason):
        refuse(peft_model(tiny_llama, config))


@pytest.mark.parametrize("init", ["eva", "corda", "lora_ga"])
def test_first_weights_from_private_data_are_refused(tiny_llama: Path, init: str) -> None:
    model = peft_model(tiny_llama, LoraConfig(r=2, target_modules=["q_proj"]))
    model.peft_config["default"].init_lora_weights = init  # type: ignore[index, union-attr]
    with pytest.raises(PrivacyError, match=f"'{init}' computes the first weights from private data"):
        refuse(model)


def test_gradient_checkpointing_is_refused(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    with pytest.raises(PrivacyError, match="gradient checkpointing"):
        refuse(get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False), nn.SyncBatchNorm(2)])
def test_batch_norm_is_refused_even_when_it_is_not_trained(norm: nn.Module) -> None:
    with pytest.raises(PrivacyError, match="mixes the users"):
        refuse(nn.Sequential(nn.Linear(2, 2), norm))


def test_instance_norm_looks_at_one_user_only() -> None:
    refuse(nn.Sequential(nn.InstanceNorm1d(2)))
    with pytest.raises(PrivacyError, match="mixes the users"):
        refuse(nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True)))


def test_every_reason_is_listed_at_once(tiny_llama: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], use_dora=True)
    with pytest.raises(PrivacyError) as caught:
        refuse(peft_model(tiny_llama, config))
    assert {"DoRA", "embedding"} <= set(caught.value.problem.replace(":", " ").split())


ROWS = torch.arange(12.0).view(4, 3)


def in_batch_negatives(rows: Tensor) -> Tensor:
    return F.cross_entropy(rows @ rows.T, torch.arange(len(rows)), reduction="none")


@pytest.mark.parametrize(
    "losses",
    [
        in_batch_negatives,
        lambda rows: rows.sum(1) - rows.sum(1).mean(),
        lambda rows: rows.sum(1).cumsum(0),
        lambda rows: rows.sum(1) / len(rows),
        lambda rows: nn.BatchNorm1d(3)(rows).sum(1),
        lambda rows: rows.mean(),
        lambda rows: rows,
    ],
)
def test_losses_that_mix_users_are_refused(losses: Any) -> None:
    with pytest.raises(PrivacyError, match=r"depends on another|has shape"):
        refuse_mixing(losses, ROWS)


def test_a_loss_per_user_passes() -> None:
    refuse_mixing(lambda rows: rows.square().sum(1), ROWS)


SHAPE = AdapterShape(rank=2, item_dim=0, summary_dim=4, context_dim=6, score_dim=5)


def test_our_own_model_may_be_trained_in_the_private_parts_only(tiny_llama: Path, features: ItemFeatures) -> None:
    backbone = load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)
    model = build_model(backbone, features, AdapterShape(**{**vars(SHAPE), "item_dim": 3}), seed=1)
    refuse_private_training(model, ["prior", "head", "lora"])
    item_token_model(model).item_emb.modules_to_save["default"].sparse = True  # type: ignore[union-attr,index]
    with pytest.raises(PrivacyError, match="sparse"):
        refuse_private_training(model, ["head"])


def test_a_worker_with_a_plan_refuses_before_anything_else(tiny_llama: Path, features: ItemFeatures) -> None:
    backbone = load_backbone(tiny_llama, 2, torch.device("cpu"), torch.float32)
    model = build_model(backbone, features, SHAPE, seed=1)
    model.peft_config["default"].use_dora = True
    plan = PrivacyPlan("user", "inspect", 1e-5, (PartPlan("head", 1.0, 1.0, 4.0, 1),), 1)
    data = PartnerData.of([np.array([1, 2, 3], np.int32)])
    with pytest.raises(PrivacyError, match="DoRA"):
        Worker("shop", model, data, plan, None, bytes(32), PlainSettings(1e-3, 0.0, 8, 50))
    Worker("shop", model, data, None, None, bytes(32), PlainSettings(1e-3, 0.0, 8, 50))
