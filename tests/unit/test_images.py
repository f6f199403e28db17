"""Reading pictures: shapes by stage, what is transparent, what is damaged, and statistics in units of their own."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fedrec.data.media import ModalityVectors
from fedrec.errors import ModelError
from fedrec.model.fusion import Reduction
from fedrec.model.images import IMAGE_DIM, EfficientNetLite0, ImageEncoder, read_picture

# Repeats, kernel, expansion, channels of each stage, as in the paper.
_STAGES = ((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320))


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    generator = torch.Generator().manual_seed(1)
    weights: dict[str, torch.Tensor] = {}

    def add(name: str, norm: str, *shape: int) -> None:
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
        rows = {"weight": torch.ones, "bias": torch.zeros, "running_mean": torch.zeros, "running_var": torch.ones}
        weights.update({f"{norm}.{part}": make(shape[0]) for part, make in rows.items()})

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    number, width = 0, 32
    for repeats, kernel, expansion, channels in _STAGES:
        for _ in range(repeats):
            place, wide = f"_blocks.{number}.", width * expansion
            if expansion > 1:
                add(f"{place}_expand_conv", f"{place}_bn0", wide, width, 1, 1)
            add(f"{place}_depthwise_conv", f"{place}_bn1", wide, 1, kernel, kernel)
            add(f"{place}_project_conv", f"{place}_bn2", channels, wide, 1, 1)
            number, width = number + 1, channels
    add("_conv_head", "_bn1", 1280, 320, 1, 1)
    with pytest.raises(ModelError, match="no EfficientNet-Lite0"):
        EfficientNetLite0({"_conv_stem.weight": torch.zeros(1)})
    return ImageEncoder(EfficientNetLite0(weights).eval(), "made")


def _png(colour: tuple[int, ...], size: tuple[int, int] = (40, 20)) -> bytes:
    kept = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(kept, "PNG")
    return kept.getvalue()


def test_the_end_and_every_stage_are_read(encoder: ImageEncoder) -> None:
    stages = sum(channels for *_, channels in _STAGES)
    assert 1280 + 2 * stages == IMAGE_DIM
    found = encoder.encode([_png((200, 30, 30)), None, b"no picture", _png((30, 30, 200))])
    assert found.present.tolist() == [True, False, False, True]
    assert found.vectors.shape == (4, IMAGE_DIM)
    assert found.own_units
    last = torch.from_numpy(found.vectors[0, 1280 + stages - 320 : 1280 + stages])
    seen = []
    layers = encoder.module._layers  # type: ignore[attr-defined]
    hook = layers[-2].register_forward_hook(lambda *given: seen.append(given[-1]))  # type: ignore[operator,union-attr,index]
    encoder.encode([_png((200, 30, 30))])
    hook.remove()  # type: ignore[union-attr]
    torch.testing.assert_close(last, seen[0].mean((2, 3))[0], rtol=1e-4, atol=1e-6)
    spread = torch.from_numpy(found.vectors[0, -320:])
    torch.testing.assert_close(spread, seen[0].std((2, 3))[0], rtol=1e-4, atol=1e-6)


def test_what_is_transparent_is_white_and_nothing_is_stretched() -> None:
    clear, red = read_picture(_png((0, 0, 0, 0)), 32), read_picture(_png((255, 0, 0)), 32)
    assert clear is not None
    assert red is not None
    assert (clear == 255).all()
    assert (red[8:24] == [255, 0, 0]).all()  # 40 by 20: half as high as wide, in the middle
    assert (red[:8] == 255).all()
    assert (red[24:] == 255).all()
    assert read_picture(b"\x89PNG but no more") is None


def test_units_of_statistics_do_not_decide_what_counts() -> None:
    rng, units = np.random.default_rng(0), np.array([1, 1000, 0.01, 1, 1, 1], np.float32)
    raw = rng.normal(size=(30, 6)).astype(np.float32)
    raw[:, 5] = 4.0  # the same for all: it says nothing, and must not become NaN
    there = np.arange(30) < 25

    def reduced(vectors: np.ndarray, *, own_units: bool) -> np.ndarray:
        found = ModalityVectors("image", vectors * there[:, None], there, own_units=own_units)
        return Reduction.fit(found, 3).of(found)

    np.testing.assert_allclose(reduced(raw, own_units=True), reduced(raw * units, own_units=True), atol=1e-4)
    assert np.abs(reduced(raw, own_units=False) - reduced(raw * units, own_units=False)).max() > 0.1
    assert not reduced(raw, own_units=True)[25:].any()
