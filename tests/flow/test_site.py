"""The site that `make docs` builds: every page is in it, nothing comes from elsewhere, and it shows
what GitHub shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import nas

ROOT = Path(__file__).parent.parent.parent
API = "docs/api.md"  # its docstrings are on the site alone
NOTEBOOK = "docs/blood-cells.ipynb"
OTHER_PAGES = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}
SCREENS = {
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True},
}


def nav_pages(part: Any) -> list[str]:
    """Paths in a navigation, from the repository's root."""
    if isinstance(part, str):
        return [part]
    return [
        page
        for each in (part.values() if isinstance(part, dict) else part)
        for page in nav_pages(each)
    ]


CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
PAGES = nav_pages(CONFIG["nav"])


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mkdocs", reason="needs the extra docs: pip install 'scratch-nas[docs]'")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    return subprocess.run(
        words, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "site"
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


def built(site: Path, page: str) -> str:
    """HTML of a page's article."""
    path = site / page.replace("README.md", "index.md")
    text = path.with_suffix(".html").read_text()
    return text[text.index("<article") : text.index("</article>")]


def test_every_page_is_in_the_navigation():
    paths = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]
    pages = {path.relative_to(ROOT).as_posix() for path in paths}
    assert pages | OTHER_PAGES <= set(PAGES)
    assert len(PAGES) == len(set(PAGES))


@pytest.mark.parametrize("page", sorted({*PAGES} - {API, NOTEBOOK}))
def test_pages_have_what_github_shows(site: Path, page: str):
    """Lists, tables and code by another reader of Markdown, which reads as GitHub does."""
    github = MarkdownIt("commonmark").enable("table").render((ROOT / page).read_text())
    html = built(site, page)
    for tag in ("h1", "h2", "h3", "li", "pre", "tr", "td", "img"):
        assert counted(html, tag) == counted(github, tag), tag


def counted(html: str, tag: str) -> int:
    return len(re.findall(rf"<{tag}[ >]", html))


def test_docstrings_are_on_the_page(site: Path):
    html = built(site, API)
    for name in nas.__all__:
        assert f'id="nas.api.public.{name}"' in html
    assert "nas.reports.trials.LeaderboardRow" in html
    assert ":::" not in html
    assert "&gt;&gt;&gt;" in html  # examples are code


def test_a_notebook_is_a_page_with_its_outputs(site: Path):
    html = built(site, NOTEBOOK)
    assert "<caption>Study blood-cells</caption>" in html
    (picture,) = re.findall(r'<img [^>]*src="([^"]+)"', html)
    assert (site / "docs" / picture).read_bytes().startswith(b"\x89PNG")


def test_nothing_comes_from_elsewhere(site: Path):
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(\S+)", path.read_text()
        )
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], path


def test_mistakes_end_a_build(tmp_path: Path):
    copied = ("benchmarks", "deploy", "docs", "examples", "nas")
    for folder in copied:
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("mkdocs.yml", "CITATION.cff", *OTHER_PAGES):
        shutil.copy(ROOT / file, tmp_path)
    with (tmp_path / "docs" / "plan.md").open("a") as file:
        file.write("\n[a](nowhere.md) [b](searches.md#nothing) [c](../LICENCE)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for part in ("nowhere.md", "#nothing", "../LICENCE"):
        assert part in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("screen", SCREENS)
def test_a_person_reads_it(site: Path, chromium: Any, screen: str):
    """From disk, as a browser shows it: no page is wider than the screen, none asks the network."""
    tab = chromium.new_context(**SCREENS[screen]).new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    for page in PAGES:
        path = (site / page.replace("README.md", "index.md")).with_suffix(".html")
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page
        assert tab.locator("article h1").first.is_visible()
    scheme = tab.locator("body").get_attribute("data-md-color-scheme")
    assert scheme == ("slate" if screen == "dark" else "default")
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
