"""The admin pages of a real coordinator with two partners, used in headless Chromium."""

import shutil
from pathlib import Path

import pytest

from fedrec_sim.rehearsal.pages import rehearse_pages


@pytest.mark.real
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium, which .ci/run installs")
def test_the_pages_can_be_used(tmp_path: Path) -> None:
    found = rehearse_pages(tmp_path / "pages", say=lambda _: None)
    assert len(found["checks"]) >= 21
    assert all(found["checks"].values()), [name for name, holds in found["checks"].items() if not holds]
    assert {"live.png", "overview.png", "phone-overview.png"} <= set(found["screenshots"])
    assert all((tmp_path / "pages" / "shots" / name).stat().st_size > 5000 for name in found["screenshots"])
