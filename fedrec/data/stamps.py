"""Tux Paint's stamps as Debian packs them: pictures with a caption, and the folders in which people sorted them."""

from pathlib import Path, PurePosixPath

from fedrec.data.catalog import ItemCatalog, read_stored_catalog, write_catalog
from fedrec.data.debian import deb_files
from fedrec.data.media import ItemImages, ItemMedia, read_media, write_media
from fedrec.errors import DataError
from fedrec.files import new_folder

FILE = "tuxpaint-stamps-default_2022.06.04-1_all.deb"
_ROOT = PurePosixPath("usr/share/tuxpaint/stamps")
# Changes when unpacking below changes, so that an old folder is never taken for a new one.
_RECIPE = "stamps-1"


def load_stamps(folder: Path, unpacked: Path) -> tuple[ItemCatalog, ItemMedia]:
    """Every stamp that has both a PNG picture and a caption: 785 of them.

    The text is the English caption alone ("A rat."): the folder, which is the category, is not told to any encoder.

    Args:
        folder: what `fetch("stamps")` gave.
        unpacked: a folder below which the few files that are needed are kept from the first time on.
    Raises: DataError: a package that is missing or damaged.
    """
    place = unpacked / _RECIPE
    if not place.is_dir():
        catalog, media = _unpack(folder / FILE)
        with new_folder(place) as fresh:
            write_catalog(catalog, fresh / "catalog.parquet")
            write_media(media, fresh / "media.parquet")
    catalog = read_stored_catalog(place / "catalog.parquet")
    return catalog, read_media(place / "media.parquet", catalog)


def _unpack(path: Path) -> tuple[ItemCatalog, ItemMedia]:
    pictures: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    for name, content in deb_files(path):
        place = PurePosixPath(name)
        if not place.is_relative_to(_ROOT):
            continue
        stamp = str(place.relative_to(_ROOT).with_suffix(""))
        if place.suffix == ".png":
            pictures[stamp] = content.read()
        elif place.suffix == ".txt":
            # The first line is English; the others are translations, "de.utf8=Eine Ratte."
            captions[stamp] = content.read().decode("utf-8", "replace").partition("\n")[0].strip()
    both = sorted(stamp for stamp in pictures if captions.get(stamp))
    if not both:
        raise DataError(f"{path}: holds no stamps", "fetch it anew: `fedrec data fetch stamps`")
    texts = tuple(captions[stamp] for stamp in both)
    folders = tuple(tuple(PurePosixPath(stamp).parts[:-1]) for stamp in both)
    catalog = ItemCatalog(tuple(both), texts, texts, folders, (None,) * len(both))
    return catalog, ItemMedia(ItemImages(tuple(pictures[stamp] for stamp in both)))
