"""Data sets by name: known ones, fetched and checked, folders that were imported, and made users."""

from collections.abc import Callable
from pathlib import Path

from fedrec.data import generator, made_tastes
from fedrec.data.catalog import ItemCatalog, read_stored_catalog, write_catalog
from fedrec.data.columns import parquet_facts
from fedrec.data.interactions import BY_USER, InteractionTable, read_stored_interactions
from fedrec.data.media import ItemMedia, read_media
from fedrec.data.movielens_small import load_movielens_small
from fedrec.data.sources import cache_dir, fetch, list_sources, load_ml100k
from fedrec.data.stamps import load_stamps
from fedrec.data.stored import StoredInteractions
from fedrec.errors import ConfigError
from fedrec.files import new_folder

Say = Callable[[str], None]
Interactions = InteractionTable | StoredInteractions
GENERATED, STAMPS = "generated", "stamps"
MADE = (GENERATED, STAMPS)
"""Sources whose users are made: `data.users` says how many, where others say how many are drawn."""

_STAMP_USERS = 1000


def load_data(source: str, say: Say, users: int = 0) -> tuple[ItemCatalog, Interactions]:
    """A known data set, a folder written by `fedrec data import` or `generate`, or made users."""
    if source == "ml-100k":
        say("MovieLens-100K")
        return load_ml100k(fetch("ml-100k"))
    if source == "movielens-small":
        say("MovieLens latest-small")
        return load_movielens_small(fetch("movielens-small"))
    if source == STAMPS:
        return _load_stamps(users or _STAMP_USERS, say)
    folder = generated_folder(users, say) if source == GENERATED else Path(source)
    if not folder.is_dir():
        known = ", ".join(s.name for s in list_sources() if s.kind == "data")
        raise ConfigError(f"data.source {source!r} is neither a folder nor one of: {known}", "run `fedrec data import`")
    catalog, path = read_stored_catalog(folder / "catalog.parquet"), folder / "interactions.parquet"
    if BY_USER.items() <= parquet_facts(path, "interactions").items():
        return catalog, StoredInteractions.open(path, catalog)
    return catalog, read_stored_interactions(path, catalog)


def load_media(source: str) -> ItemMedia:
    """What a source's items have beside their texts; nothing where it has none. Raises DataError: damaged."""
    if source == STAMPS:
        return stamps()[1]
    path = Path(source) / "media.parquet"
    if source in {known.name for known in list_sources()} | {GENERATED} or not path.is_file():
        return ItemMedia()
    return read_media(path, read_stored_catalog(path.with_name("catalog.parquet")))


def stamps() -> tuple[ItemCatalog, ItemMedia]:
    """Debian's stamps, fetched and unpacked once."""
    return load_stamps(fetch(STAMPS), cache_dir() / "converted")


def made_over_stamps(users: int, seed: int) -> tuple[ItemCatalog, ItemMedia, InteractionTable]:
    """The stamps with made users, the same for one seed."""
    catalog, media = stamps()
    assert media.images is not None
    attributes = made_tastes.attributes_of(catalog, media.images.pictures)
    return catalog, media, made_tastes.made_table(catalog, attributes, users, seed)


def _load_stamps(users: int, say: Say) -> tuple[ItemCatalog, Interactions]:
    folder = cache_dir() / "generated" / f"{made_tastes.SCHEME}-{users}"
    if not folder.is_dir():
        say(f"making {users} users over the stamps")
        catalog, _, table = made_over_stamps(users, seed=1)
        with new_folder(folder) as fresh:
            write_catalog(catalog, fresh / "catalog.parquet")
            made_tastes.write_made(table, fresh / "interactions.parquet", seed=1)
    catalog = read_stored_catalog(folder / "catalog.parquet")
    return catalog, StoredInteractions.open(folder / "interactions.parquet", catalog)


def generated_from(table: Interactions) -> str | None:
    """In words, what made users were made from; None if they are real."""
    made = table.generated if isinstance(table, StoredInteractions) else None
    if made is None:
        return None
    how = made.get("how") or f"generated users, fitted to {made['fitted_to']}"
    return f"{how}, seed {made['seed']}"


def generated_folder(users: int, say: Say) -> Path:
    """Made users, kept in the cache from the first time on: those of `fedrec data generate --users USERS`."""
    folder = cache_dir() / "generated" / f"{generator.SCHEME}-{users}"
    if not folder.is_dir():
        say(f"making {users} users after MovieLens-100K")
        generate_folder(folder, users)
    return folder


def generate_folder(folder: Path, users: int, seed: int = 1) -> None:
    """Write made users, fitted to MovieLens-100K, as a folder that `data.source` may name; whole or not at all.

    Raises: ConfigError: the folder is there. StorageError.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: exists already", "name a new folder")
    catalog, table = load_ml100k(fetch("ml-100k"))
    fitted = generator.fit(table, catalog, source="ml-100k")
    with new_folder(folder) as fresh:
        write_catalog(catalog, fresh / "catalog.parquet")
        generator.write_generated(fitted, fresh / "interactions.parquet", catalog, users=users, seed=seed)
