"""`fedrec data` and `fedrec model`: fetch, describe, import."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from fedrec.data.catalog import CatalogColumns, ItemCatalog, read_catalog, write_catalog
from fedrec.data.interactions import ColumnMapping, InteractionTable, read_interactions, write_interactions
from fedrec.data.media import ItemMedia, read_item_media, write_media
from fedrec.data.sources import cache_dir, fetch, list_sources
from fedrec.errors import ConfigError
from fedrec.files import new_folder
from fedrec_sim.cli_output import AsJson, console, emit_json
from fedrec_sim.figures import printable

data = typer.Typer(no_args_is_help=True, help="Interactions and catalogues: fetch, describe, import.")
model = typer.Typer(no_args_is_help=True, help="Frozen models that partners share: fetch, list.")

Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing unless something is wrong.")]


@data.command("fetch")
def data_fetch(name: str = typer.Argument("ml-100k"), quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Fetch a known data set, checked by SHA-256. Example: `fedrec data fetch ml-100k`"""
    _fetched(name, fetch(_known(name, "data")), quiet, as_json)


@model.command("fetch")
def model_fetch(name: str = typer.Argument("smollm2-135m"), quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Fetch a known model, checked by SHA-256, and convert it once. Example: `fedrec model fetch smollm2-135m`"""
    from fedrec.model.shared import model_folder

    _fetched(name, model_folder(_known(name, "model"), lambda _: None), quiet, as_json)


def _known(name: str, kind: str) -> str:
    known = [source.name for source in list_sources() if source.kind == kind]
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}", f"known: {', '.join(known)}")
    return name


def _fetched(name: str, folder: Path, quiet: bool, as_json: bool) -> None:
    if as_json:
        emit_json({"name": name, "folder": str(folder)})
    elif not quiet:
        console.print(f"{name}: {folder}")


@model.command("list")
def model_list(as_json: AsJson = False) -> None:
    """List the models that fedrec can fetch. Any other: name its Hugging Face folder in `model.backbone`."""
    rows = [
        {"name": s.name, "licence": s.licence, "note": s.note, "fetched": (cache_dir() / s.name).is_dir()}
        for s in list_sources()
        if s.kind == "model"
    ]
    if as_json:
        emit_json(rows)
        return
    table = Table("name", "licence", "fetched", "note")
    for row in rows:
        table.add_row(str(row["name"]), str(row["licence"]), "yes" if row["fetched"] else "no", str(row["note"]))
    console.print(table)


@data.command("describe")
def data_describe(
    source: str = typer.Argument("ml-100k", help="A known data set, or a folder made by `fedrec data import`."),
    as_json: AsJson = False,
) -> None:
    """Count what is there. For the data's owner: nothing here is noised. Example: `fedrec data describe ml-100k`"""
    from fedrec.data.datasets import generated_from, load_data

    catalog, table = load_data(source, lambda _: None)
    per_user, per_item, first, last = np.zeros(0, np.int64), np.zeros(table.n_items, np.int64), np.inf, -np.inf
    for part in table.tables():
        per_user = np.concatenate([per_user, np.bincount(part.user_codes, minlength=part.n_users)])
        per_item += np.bincount(part.item_codes, minlength=part.n_items)
        first, last = min(first, part.timestamp.min()), max(last, part.timestamp.max())
    facts = {
        "source": source,
        "users": table.n_users,
        "items": table.n_items,
        "interactions": table.n_rows,
        "density": table.n_rows / (table.n_users * table.n_items),
        "per_user_median": float(np.median(per_user)),
        "per_user_max": int(per_user.max()),
        "users_with_one_interaction": int((per_user == 1).sum()),
        "items_never_seen": int((per_item == 0).sum()),
        "first": str(np.datetime64(int(first), "s")),
        "last": str(np.datetime64(int(last), "s")),
        "generated": generated_from(table),
        "hash": table.hash,
        "catalog_hash": catalog.hash,
    }
    if as_json:
        emit_json(facts)
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(grid)


@data.command("generate")
def data_generate(
    out: Annotated[Path, typer.Option(help="Folder to write; give it as `data.source`.")],
    users: Annotated[int, typer.Option(help="How many users to make.", min=1, max=10_000_000)] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same users, bit for bit.", min=0)] = 1,
    as_json: AsJson = False,
) -> None:
    """Make users after MovieLens-100K, copying none: docs/generated-data.md says what they keep of it.

    Every figure made with them is labelled as generated. Never train on them and test on MovieLens-100K: they were
    fitted to its test items too. Example: `fedrec data generate --users 100000 --seed 1 --out data/made`
    """
    from fedrec.data.catalog import read_stored_catalog
    from fedrec.data.datasets import generate_folder
    from fedrec.data.stored import StoredInteractions

    generate_folder(out, users, seed)
    table = StoredInteractions.open(out / "interactions.parquet", read_stored_catalog(out / "catalog.parquet"))
    if as_json:
        counts = {"users": table.n_users, "items": table.n_items, "interactions": table.n_rows}
        emit_json({"folder": str(out), **counts, "hash": table.hash, "generated": table.generated})
    else:
        console.print(f"{out}: {table.n_users} made users, {table.n_items} items, {table.n_rows} interactions")


@data.command("compare")
def data_compare(
    one: Annotated[str, typer.Argument(help="A known data set, or a folder.")],
    other: Annotated[str, typer.Argument(help="A folder of `fedrec data generate`, say.")],
    as_json: AsJson = False,
) -> None:
    """Hold two data sets of one catalogue side by side: lengths, popularity, what simple recommenders find in them.

    For the data's owners: nothing here is noised. Example: `fedrec data compare ml-100k data/made --json`
    """
    from fedrec.data.datasets import load_data
    from fedrec_sim.compare import portrait

    loaded = {source: load_data(source, lambda _: None) for source in (one, other)}
    portraits = {source: portrait(table, catalog) for source, (catalog, table) in loaded.items()}
    if as_json:
        emit_json(portraits)
        return
    table = Table("", *(printable(source) for source in portraits))
    for key in portraits[one]:
        table.add_row(key.replace("_", " "), *(printable(str(figures[key])) for figures in portraits.values()))
    console.print(table)


@data.command("import")
def data_import(
    interactions: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet or JSON lines.")],
    catalog: Annotated[Path, typer.Option("--catalog", help="The items: CSV, TSV, Parquet or JSON lines.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; give it as `data.source`.")],
    user: Annotated[str, typer.Option(help="Column of the user.")] = "user",
    item: Annotated[str, typer.Option(help="Column of the item.")] = "item",
    timestamp: Annotated[str, typer.Option(help="Column of the time: Unix seconds or ISO 8601.")] = "timestamp",
    rating: Annotated[str | None, typer.Option(help="Column of the rating, if there is one.")] = None,
    item_id: Annotated[str, typer.Option(help="Catalogue column of the item.")] = "item",
    title: Annotated[str, typer.Option(help="Catalogue column of the title.")] = "title",
    text: Annotated[str | None, typer.Option(help="Column of the text; title and categories without it.")] = None,
    categories: Annotated[str | None, typer.Option(help="Catalogue column of categories.")] = None,
    year: Annotated[str | None, typer.Option(help="Catalogue column of the year.")] = None,
    image: Annotated[str | None, typer.Option(help="Catalogue column of picture files, beside the catalogue.")] = None,
    vectors: Annotated[
        list[str] | None, typer.Option("--vector", help="Catalogue column of vectors (audio, video); repeat it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check and store your own data; nothing is written unless all of it is right.

    Example: `fedrec data import clicks.csv --catalog items.csv --to data/shop --user customer --item sku`
    """
    if to.exists():
        raise ConfigError(f"{to}: exists already", "name a new folder")
    items = read_catalog(catalog, CatalogColumns(item_id, title, text, categories, year))
    table = read_interactions(interactions, ColumnMapping(user, item, rating, timestamp), items)
    media, lost = ItemMedia(), 0
    if image or vectors:
        media, lost = read_item_media(catalog, items, item=item_id, image=image, vectors=vectors or [])
    _store(items, table, to, media)
    counts = {"users": table.n_users, "items": len(items), "interactions": table.n_rows}
    if as_json:
        emit_json({"folder": str(to), **counts, "modalities": list(media.names), "pictures_lost": lost})
        return
    console.print(f"{to}: {table.n_users} users, {len(items)} items, {table.n_rows} interactions")
    if media.names:
        gone = f"; {lost} pictures are missing or damaged, their items go without" if lost else ""
        console.print(f"beside the text: {', '.join(media.names)}{gone}")


def _store(items: ItemCatalog, table: InteractionTable, to: Path, media: ItemMedia) -> None:
    """Write all files into a new folder, or leave no folder."""
    with new_folder(to) as fresh:
        write_catalog(items, fresh / "catalog.parquet")
        write_interactions(table, fresh / "interactions.parquet")
        if media.names:
            write_media(media, fresh / "media.parquet")
