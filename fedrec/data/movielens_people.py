"""Who the people of MovieLens-100K are, as they said themselves in 1998: age and gender, for figures by group."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.errors import DataError

FILE = "ml-100k.user"
_COLUMNS = ("user_id:token", "age:token", "gender:token")


@dataclass(frozen=True)
class Person:
    """One of them. Private, as all that is known of a person."""

    age: int = field(repr=False)
    gender: str = field(repr=False)


def load_people(folder: Path) -> dict[str, Person]:
    """People by user id, from what `fetch("ml-100k")` gave. Private.

    Raises: DataError: the file is missing or damaged; the words name lines, never what stands there.
    """
    path, people, problems = folder / FILE, dict[str, Person](), list[str]()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            if missing := set(_COLUMNS) - set(rows.fieldnames or ()):
                raise DataError(f"{path}: lacks {', '.join(sorted(missing))}", "fetch it anew")
            for number, row in enumerate(rows, start=2):
                user, age, gender = (row[name] or "" for name in _COLUMNS)
                if not user or not age.isdigit() or gender not in ("F", "M"):
                    problems.append(f"line {number}: no user with age and gender")
                else:
                    people[user] = Person(int(age), gender)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read", "run `fedrec data fetch ml-100k`") from error
    if problems:
        raise DataError.of_all(problems, "fetch it anew", str(path))
    return people
