"""Files that pages load: those shared here, and those of the package that has the pages."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from fedrec.files import sha256

SHARED: Traversable = files("fedrec.web") / "static"


def static_files(*folders: Traversable) -> dict[str, bytes]:
    """Contents by name, of folders without folders in them; of two of one name the first."""
    found: dict[str, bytes] = {}
    for folder in folders:
        for file in folder.iterdir():
            if file.is_file():
                found.setdefault(file.name, file.read_bytes())
    return found


def addresses(contents: dict[str, bytes]) -> dict[str, str]:
    """Under `/static`, with the content's hash, so that a browser keeps no old one.

    >>> addresses({"a.css": b""})
    {'a.css': '/static/a.css?e3b0c44298fc'}
    """
    return {name: f"/static/{name}?{sha256(content)[:12]}" for name, content in contents.items()}
