"""What `mkdocs.yml` has MkDocs do besides: the site has the repository's pages under their own
paths, with the files that they link to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#:\s]+)\)")
TARGET = re.compile(r"\]\(([^)#:\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Put the pages of the navigation, and what they link to, in the place of docs/."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = list(nav_pages(config.nav))
    linked = {target for page in pages for target in linked_files(ROOT / page)}
    styles = [path for path in config.extra_css if (ROOT / path).is_file()]  # others are a plugin's
    own = [*pages, *sorted(linked - set(pages)), *styles]
    return Files([*theme, *(_file(path, config) for path in own)])


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to folders to their README; of a folder without one, leave the text."""
    folder = (ROOT / page.file.src_uri).parent

    def lead(link: re.Match[str]) -> str:
        text, target = link.groups()
        if not (folder / target).is_dir():
            return link[0]
        readme = folder / target / "README.md"
        return f"[{text}]({target.rstrip('/')}/README.md)" if readme.exists() else text

    return LINK.sub(lead, markdown)


def nav_pages(nav: Any) -> Iterator[str]:
    """Paths of the pages, from the repository's root, in the order of the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from nav_pages(part)


def linked_files(page: Path) -> Iterator[str]:
    """Paths of the files that a page links to or shows, from the repository's root."""
    for target in TARGET.findall(page.read_text()):
        path = (page.parent / target).resolve()
        if path.is_file():
            yield path.relative_to(ROOT).as_posix()


def _file(path: str, config: Any) -> File:
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)
