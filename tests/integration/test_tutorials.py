"""Every tutorial is executed, small, and is told of where a reader looks for it."""

import ast
import re
import runpy
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs/tutorials"
TUTORIALS = sorted(FOLDER.glob("*.py"))
CELL = re.compile(r"^# %%(.*)$", flags=re.M)


def cells_of(text: str) -> list[tuple[bool, str]]:
    """Whether each cell is text, and its content. What stands before the first cell makes one without a mark."""
    pieces = CELL.split(text)
    found = [(False, pieces[0])] if pieces[0].strip() else []
    return [
        *found,
        *((mark.strip() == "[markdown]", body) for mark, body in zip(pieces[1::2], pieces[2::2], strict=True)),
    ]


@pytest.mark.real
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_what_it_tells_is_so(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDREC_TUTORIAL_QUICK", "1")
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    assert [made.name for made in tmp_path.iterdir()] == [f"tutorial-{path.stem.replace('_', '-')}"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_a_notebook_that_begins_with_what_it_is_for(path: Path) -> None:
    cells = cells_of(path.read_text(encoding="utf-8"))
    assert cells[0][0], "the first cell is text"
    texts = [body.strip() for is_text, body in cells if is_text]
    assert all(line.startswith("#") for text in texts for line in text.splitlines())
    headings = [line for text in texts for line in text.splitlines() if line.startswith("# # ")]
    assert headings == [texts[0].splitlines()[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for is_text, body in cells:
            assert is_text or ast.parse(body), "each cell is whole Python"


def test_every_tutorial_is_in_the_table() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", text, flags=re.M) == [path.name for path in TUTORIALS]
    assert TUTORIALS
