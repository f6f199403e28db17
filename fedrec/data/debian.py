"""Files inside a Debian package, read with the standard library: nothing is installed, nothing is run."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fedrec.errors import DataError

_MAGIC, _HEADER_BYTES = b"!<arch>\n", 60


class _Window:
    """The first bytes of an open file, as tarfile reads a stream."""

    def __init__(self, file: IO[bytes], n_bytes: int) -> None:
        self._file, self._left = file, n_bytes

    def read(self, n_bytes: int) -> bytes:
        """At most so many; none at the end."""
        found = self._file.read(min(n_bytes, self._left))
        self._left -= len(found)
        return found


def deb_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Regular files of a package in its own order: place, like "usr/share/x", and content to be read at once.

    Raises: DataError: no Debian package, damaged, or packed in a way that this Python cannot read.
    """
    remedy = "fetch it anew: `fedrec data fetch`"
    try:
        with path.open("rb") as file:
            window = _Window(file, _seek_data(file))
            with tarfile.open(fileobj=window, mode="r|*") as packed:  # type: ignore[call-overload]  # all that it reads
                for member in packed:
                    content = packed.extractfile(member) if member.isreg() else None
                    if content is not None:
                        yield member.name.removeprefix("./"), content
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: no Debian package that can be read here ({type(error).__name__})", remedy) from error


def _seek_data(file: IO[bytes]) -> int:
    """Go to the content of the package's second archive; its size. Raises ValueError: there is none."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("not an ar archive")
    while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
        name, n_bytes = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
        if name.startswith("data.tar"):
            return n_bytes
        file.seek(n_bytes + n_bytes % 2, 1)
    raise ValueError("no data")
