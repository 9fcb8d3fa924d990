"""Search: the site finds a page when it is opened as a file, in a real chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..dashboard.browsing import chromium
from .blocks import ROOT


def test_the_site_can_be_searched_without_a_web_server(tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip

    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"file://{site}/decisions/0008-docs-are-made-and-checked.html")
        page.locator("input[name=query]").press_sequentially("breaker")
        page.wait_for_selector(".md-search-result__item a[href*='BreakerOpened']")
