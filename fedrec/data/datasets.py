"""Data sets by name: known ones, fetched and checked, folders that were imported, and made users."""

from collections.abc import Callable
from pathlib import Path

from fedrec.data import generator
from fedrec.data.catalog import ItemCatalog, read_stored_catalog, write_catalog
from fedrec.data.columns import parquet_facts
from fedrec.data.interactions import BY_USER, InteractionTable, read_stored_interactions
from fedrec.data.movielens_small import load_movielens_small
from fedrec.data.sources import cache_dir, fetch, list_sources, load_ml100k
from fedrec.data.stored import StoredInteractions
from fedrec.errors import ConfigError
from fedrec.files import new_folder

Say = Callable[[str], None]
Interactions = InteractionTable | StoredInteractions
GENERATED = "generated"


def load_data(source: str, say: Say, users: int = 0) -> tuple[ItemCatalog, Interactions]:
    """A known data set, a folder written by `fedrec data import` or `generate`, or made users."""
    if source == "ml-100k":
        say("MovieLens-100K")
        return load_ml100k(fetch("ml-100k"))
    if source == "movielens-small":
        say("MovieLens latest-small")
        return load_movielens_small(fetch("movielens-small"))
    folder = generated_folder(users, say) if source == GENERATED else Path(source)
    if not folder.is_dir():
        known = ", ".join(s.name for s in list_sources() if s.kind == "data")
        raise ConfigError(f"data.source {source!r} is neither a folder nor one of: {known}", "run `fedrec data import`")
    catalog, path = read_stored_catalog(folder / "catalog.parquet"), folder / "interactions.parquet"
    if BY_USER.items() <= parquet_facts(path, "interactions").items():
        return catalog, StoredInteractions.open(path, catalog)
    return catalog, read_stored_interactions(path, catalog)


def generated_from(table: Interactions) -> str | None:
    """In words, what made users were made from; None if they are real."""
    made = table.generated if isinstance(table, StoredInteractions) else None
    return f"generated users, fitted to {made['fitted_to']}, seed {made['seed']}" if made else None


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
