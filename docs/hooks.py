"""What `mkdocs.yml` has MkDocs do besides: the site has the repository's pages under their own
paths, with the files that they link to, and notebooks are pages with the outputs that they have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#:\s]+)\)")
TARGET = re.compile(r"\]\(([^)#:\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Put the pages of the navigation, and what they link to, in the place of docs/."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = list(nav_pages(config.nav))
    linked = {target for page in pages for target in linked_files(ROOT / page)}
    styles = [path for path in config.extra_css if (ROOT / path).is_file()]  # others are a plugin's
    own = [*pages, *sorted(linked - set(pages)), *styles]
    return Files([*theme, *(file for path in own for file in _files(path, config))])


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
        if path.is_file() and path.is_relative_to(ROOT):
            yield path.relative_to(ROOT).as_posix()


def _files(path: str, config: Any) -> Iterator[File]:
    if path.endswith(".ipynb"):
        yield from _notebook(path, config)
    else:
        yield File(path, str(ROOT), config.site_dir, config.use_directory_urls)


class NotebookFile(File):
    """A notebook as a page; its content is Markdown."""

    def is_documentation_page(self) -> bool:
        return True


def _notebook(path: str, config: Any) -> Iterator[File]:
    """The page of a notebook, and the pictures among its outputs, in a folder of its name."""
    folder, name = Path(path).parent, Path(path).stem
    names = {"output_files_dir": name, "unique_key": name}
    markdown, resources = MarkdownExporter().from_filename(str(ROOT / path), names)
    yield NotebookFile.generated(config, path, content=markdown)
    for picture, content in resources["outputs"].items():
        yield File.generated(config, (folder / picture).as_posix(), content=content)
