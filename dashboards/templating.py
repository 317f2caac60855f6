"""HTML from the templates in this package; everything that is put into one is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nas.utils.formatting import gib_text, interval_text, percent, signed
from nas.utils.shown_text import whole

HERE = Path(__file__).parent


@cache
def _templates() -> jinja2.Environment:
    """Undefined names are errors; scores are printed in per cent."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": percent,
        "gib": gib_text,
        "signed": signed,
        "interval": interval_text,
    }
    return made


def page(template: str, prefix: str, **values: Any) -> str:
    """A page as HTML, of whole characters.

    Args:
        template: name of a file in `templates`.
        prefix: path that all links begin with, empty or with a slash at its start.
        values: what the template names.
    """
    return whole(_templates().get_template(template).render(prefix=prefix, **values))


def asset(name: str) -> str:
    """Text of a style sheet or script in `assets`.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    return (HERE / "assets" / name).read_text()


def script_json(json: str) -> Markup:
    """JSON in a form that can stand between script tags, whatever its texts are."""
    return Markup(json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
