"""Several modalities in one item vector: who lacks one is scored by the others; old adapters stay as they are."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from fedrec.data.catalog import CatalogColumns, ItemCatalog, read_catalog
from fedrec.data.debian import deb_files
from fedrec.data.made_tastes import attributes_of, made_table
from fedrec.data.media import ItemImages, ItemMedia, ModalityVectors, read_item_media, read_media, write_media
from fedrec.errors import ConfigError, DataError, ModelError
from fedrec.model.backbone import load_backbone
from fedrec.model.features import ItemFeatures
from fedrec.model.fusion import fused_features, presence, without
from fedrec.model.recommender import AdapterShape, adapter_parameters, build_model, item_token_model, user_losses
from fedrec.recommend.live_model import LiveModel
from fedrec.recommend.recommender import ModelRecommender
from fedrec.training.local import item_vectors_apart

SHAPE = AdapterShape(rank=2, item_dim=3, summary_dim=8, context_dim=6, score_dim=10, head_start=2.0, gate_dim=2)


@pytest.fixture(scope="module")
def pictures(catalog: ItemCatalog) -> ModalityVectors:
    rng = np.random.default_rng(0)
    present = np.arange(len(catalog)) % 5 > 0
    vectors = rng.normal(size=(len(catalog), 12)).astype(np.float32) * present[:, None]
    return ModalityVectors.of_column("image", vectors, present)


@pytest.fixture(scope="module")
def fused(features: ItemFeatures, pictures: ModalityVectors) -> ItemFeatures:
    return fused_features(features, [pictures], 16)[0]


def model_of(folder: Path, features: ItemFeatures, shape: AdapterShape = SHAPE, moved: float = 0.3) -> PeftModel:
    backbone = load_backbone(folder, 2, torch.device("cpu"), torch.float32)
    model = build_model(backbone, features, shape, seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_who_lacks_a_picture_is_as_long_as_the_others_and_known_by_its_text(
    features: ItemFeatures, pictures: ModalityVectors, fused: ItemFeatures
) -> None:
    assert fused.layout.names == ("text", "image")
    assert fused.layout.columns[:4] == (0, 1, 0, 1)
    np.testing.assert_array_equal(presence(fused.vectors, fused.layout)[:, 1], pictures.present)
    text = fused.vectors[:, np.array(fused.layout.columns) == 0]
    np.testing.assert_allclose(text[~pictures.present], features.vectors[~pictures.present], rtol=1e-6)
    np.testing.assert_allclose(text[pictures.present], features.vectors[pictures.present] / np.sqrt(2), rtol=1e-6)
    assert fused.hash != features.hash


def test_a_modality_taken_away_leaves_what_the_other_alone_gives(features: ItemFeatures, fused: ItemFeatures) -> None:
    bare = without(fused, "image")
    text = bare.vectors[:, np.array(fused.layout.columns) == 0]
    np.testing.assert_allclose(text, features.vectors, rtol=1e-5)
    assert not bare.vectors[:, np.array(fused.layout.columns) == 1].any()
    assert without(fused, "text").hash != bare.hash != fused.hash
    with pytest.raises(ModelError, match="no modality 'sound'"):
        without(fused, "sound")


def test_later_items_are_fused_as_the_catalogue_was(features: ItemFeatures, pictures: ModalityVectors) -> None:
    fused, fusion = fused_features(features, [pictures], 16)
    again = fusion.fuse(features.vectors, {"image": pictures})
    np.testing.assert_allclose(again, fused.vectors, rtol=1e-6)
    alone = fusion.fuse(features.vectors, {})
    np.testing.assert_allclose(alone, without(fused, "image").vectors, rtol=1e-5, atol=1e-7)


def test_without_a_gate_tensors_are_those_of_text_alone(tiny_llama: Path, fused: ItemFeatures) -> None:
    gated = set(adapter_parameters(model_of(tiny_llama, fused)))
    plain = set(adapter_parameters(model_of(tiny_llama, fused, replace(SHAPE, gate_dim=0))))
    assert {name.rsplit(".", 2)[1] for name in gated - plain} == {"modality_gate"}
    assert plain < gated
    with pytest.raises(ModelError, match="gate_dim"):
        model_of(tiny_llama, ItemFeatures.of_text(fused.vectors, fused.word_tokens, "text"))


def test_an_untrained_gate_changes_no_score(tiny_llama: Path, fused: ItemFeatures) -> None:
    items = torch.tensor([[1, 5, 7]])
    scores = [model_of(tiny_llama, fused, replace(SHAPE, gate_dim=n), moved=0.0)(items) for n in (0, 2)]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-5)


def test_a_gate_keeps_lengths_and_leaves_single_modalities_alone(tiny_llama: Path, fused: ItemFeatures) -> None:
    tokens = item_token_model(model_of(tiny_llama, fused))
    factors = tokens.modality_factors(tokens.features)
    assert factors is not None
    there = torch.from_numpy(presence(fused.vectors, fused.layout)).sum(1).float()
    torch.testing.assert_close(factors[0].square().sum(1), there)
    assert (factors[0][there == 1] - torch.tensor([1.0, 0.0])).abs().max() < 1e-6
    assert (factors[0][there == 2] - 1).abs().max() > 0.05  # it was moved, and does something


def test_a_user_in_training_sees_items_as_if_a_modality_were_missing(tiny_llama: Path, fused: ItemFeatures) -> None:
    shape = replace(SHAPE, modality_masking=0.5)
    model, items = model_of(tiny_llama, fused, shape), torch.tensor([[1, 6, 7]] * 40)
    context = torch.zeros(40, 3, shape.context_dim)  # of the whole: the language model reads what there is
    item_token_model(model).train()
    drawn = item_token_model(model).score_summaries(items, context)
    kinds = [fused, without(fused, "image"), without(fused, "text")]
    # What lacks the only modality it has keeps it in training, and has nothing where a modality is really gone.
    both = torch.from_numpy(presence(fused.vectors, fused.layout).all(1))
    alone = []
    for features in kinds:
        other = item_token_model(model_of(tiny_llama, features, SHAPE)).eval()
        alone.append(other.score_summaries(items[:1], context[:1])[0, :, both])
    assert both[[1, 6, 7]].all()
    near = torch.stack([(drawn[:, :, both] - one).abs().amax((1, 2)) < 1e-4 for one in alone], 1)
    assert near.sum(1).eq(1).all()  # every user one of the three, the same for what is read and what is scored
    assert near.any(0).all()
    item_token_model(model).eval()
    assert (item_token_model(model).score_summaries(items, context)[:, :, both] - alone[0]).abs().max() < 1e-4


def test_gradients_of_a_gate_apart_are_those_of_one_user_alone(tiny_llama: Path, fused: ItemFeatures) -> None:
    model = model_of(tiny_llama, fused)
    tokens, rows = item_token_model(model), torch.tensor([[1, 5, 7, 2], [3, 3, 9, 4]])
    gate = [p for name, p in adapter_parameters(model).items() if "modality_gate" in name]
    for parameter in gate:
        parameter.requires_grad_(True)

    def slopes(items: torch.Tensor) -> list[torch.Tensor]:
        losses = user_losses(model(items[:, :-1]), items[:, 1:])
        return list(torch.autograd.grad(losses.sum(), gate))

    alone = [slopes(row[None]) for row in rows]
    with item_vectors_apart(tokens):
        together = slopes(rows)
    for number, found in enumerate(together):
        torch.testing.assert_close(found, alone[0][number] + alone[1][number], rtol=1e-4, atol=1e-6)
        assert found.isfinite().all()
        assert found.abs().max() > 0


def test_a_live_model_scores_as_the_slow_one_and_lets_items_join(tiny_llama: Path, fused: ItemFeatures) -> None:
    model = model_of(tiny_llama, fused)
    live = LiveModel(model, "v", 20)
    tokens = item_token_model(model)
    wide = tokens.gated(tokens.known, tokens.n_score).detach().numpy()
    np.testing.assert_allclose(live.score_rows[:, : tokens.n_score], wide, rtol=1e-5)
    live.add_items(fused.vectors[[3, 5]])  # one with a picture, one without
    np.testing.assert_allclose(live.score_rows[-2:, : tokens.n_score], wide[[3, 5]], rtol=1e-5)
    assert np.isfinite(ModelRecommender(model, 20).score([np.array([1, 2])])).all()


def test_media_come_back_as_they_were_written(catalog: ItemCatalog, pictures: ModalityVectors, tmp_path: Path) -> None:
    audio = ModalityVectors.of_column("audio", pictures.vectors, pictures.present)
    media = ItemMedia(ItemImages((b"one", *[None] * (len(catalog) - 1))), (audio,))
    write_media(media, tmp_path / "media.parquet")
    found = read_media(tmp_path / "media.parquet", catalog)
    assert found.names == ("image", "audio")
    assert found.column("audio").made_from == audio.made_from
    np.testing.assert_array_equal(found.column("audio").vectors, audio.vectors)
    with pytest.raises(ConfigError, match="no modality 'video'; there: image, audio"):
        found.column("video")


def test_every_wrong_vector_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "item,title,audio,image\na,A,1 2,a.png\nb,B,1 x,\nc,C,1,b.png\nd,D,1 nan,\ne,E,3 4,\nf,F,,../x.png\n"
    )
    catalog = read_catalog(path, CatalogColumns("item", "title"))
    with pytest.raises(DataError) as refused:
        read_item_media(path, catalog, item="item", image="image", vectors=["audio"])
    for words in ("list of numbers: line 3", "2 numbers wide: line 4", "not finite: line 5"):
        assert words in str(refused.value)
    with pytest.raises(DataError, match="outside the catalogue's folder: line 7"):
        read_item_media(path, catalog, item="item", image="image", vectors=[])
    path.write_text(
        path.read_text().replace("1 x", "").replace("1 nan", "").replace(",1,", ",,").replace("../x.png", "")
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG damaged later")
    media, lost = read_item_media(path, catalog, item="item", image="image", vectors=["audio"])
    assert media.column("audio").present.tolist() == [True, False, False, False, True, False]
    assert lost == 1  # b.png is not there


def drawing(colour: str, size: tuple[int, int] = (20, 40)) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGBA", size, colour).save(content, "PNG")
    return content.getvalue()


def test_damaged_pictures_are_absent_and_the_others_are_on_white_squares() -> None:
    from fedrec.model.images import read_picture

    found = read_picture(drawing("red"), 40)
    assert found is not None
    assert found[20, 20].tolist() == [255, 0, 0]
    assert found[20, 2].tolist() == [255, 255, 255]
    for content in (b"", b"\x89PNG", drawing("red")[:60]):
        assert read_picture(content) is None


def test_made_users_are_the_same_for_one_seed_and_like_what_they_are_said_to(catalog: ItemCatalog) -> None:
    sorted_in = tuple((words[0],) if words else ("none",) for words in catalog.categories)
    items = replace(catalog, categories=sorted_in)
    attributes = attributes_of(items, [drawing("red" if n % 2 else "blue") for n in range(len(items))])
    assert attributes["colour"].shape[1] == 2
    table = made_table(items, attributes, 30, seed=4)
    assert (
        table.hash == made_table(items, attributes, 30, seed=4).hash != made_table(items, attributes, 30, seed=5).hash
    )
    reds = np.array([np.mean(table.item_codes[table.user_codes == user] % 2) for user in range(30)])
    assert reds.std() > 0.1  # some have mostly red, some mostly blue


def test_a_debian_package_is_read_and_rubbish_refused(
    tmp_path: Path, make_deb: Callable[[dict[str, bytes]], bytes]
) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(make_deb({"usr/a": b"one", "usr/b": b"two" * 1000}))
    assert {name: content.read() for name, content in deb_files(path)} == {"usr/a": b"one", "usr/b": b"two" * 1000}
    for damaged in (b"no", path.read_bytes()[:200], path.read_bytes().replace(b"data.tar", b"else.tar")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no Debian package"):
            list(deb_files(path))


@pytest.fixture
def make_deb() -> Callable[[dict[str, bytes]], bytes]:
    import tarfile

    def make(files: dict[str, bytes]) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"./{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        found = b"!<arch>\n"
        for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", packed.getvalue())):
            found += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            found += content + b"\n" * (len(content) % 2)
        return found

    return make
