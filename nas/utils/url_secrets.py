"""URLs that need a password or a token: it stays in the environment, and the URL names it.

`https://me:${DATA_PASSWORD}@host/cells.zip` is what is stored, shown and sent to other machines;
the variable is looked up where the URL is opened.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from nas.errors import SpecError

_NAMED = re.compile(r"\$\{(\w+)\}")
_SECRET_NAMES = re.compile(r"token|key|sig|secret|pass|credential|auth", re.IGNORECASE)
LONGEST = 16  # characters of a value in a query that is no secret


def check_no_secret(key: str, location: str, *, named: bool = True) -> None:
    """Refuse a URL that holds a secret itself, which would be stored and shown with it.

    Args:
        key: the key or flag that it is of, for the error.
        location: a path, or a URL.
        named: it may name environment variables.

    Raises:
        SpecError: it has a password, or a query with what looks like a token; or names a variable
            that it may not.
    """
    if "://" not in location:
        return
    if not named and _NAMED.search(location):
        raise SpecError(
            f"{key} must name no environment variable: file systems behind URLs take their "
            "credentials from their own (AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    try:
        parts = urlsplit(location)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise SpecError(f"{key} must be a path or a URL; got one that cannot be parsed") from None
    values = [parts.password or "", *(value for _, value in query if len(value) > LONGEST)]
    values += [value for name, value in query if _SECRET_NAMES.search(name)]
    values += [name for name, value in query if not value and len(name) > LONGEST]
    if any(_NAMED.sub("", value) for value in values):
        raise SpecError(
            f"{key} must hold no password or token, which would be stored and shown: put it into "
            "an environment variable, and write ${NAME} in its place in the URL"
        )


def with_secrets(location: str) -> str:
    """Put the values of environment variables in the place of their names in a URL; a path stays.

    Raises:
        SpecError: a variable is not set.
    """
    if "://" not in location:
        return location
    return _NAMED.sub(lambda named: _value(named[1], location), location)


def without_secrets(text: str, location: str) -> str:
    """Put the names of a URL's environment variables in the place of their values in a text, an
    error of a library for example.
    """
    for name in _NAMED.findall(location):
        if value := os.environ.get(name):
            text = text.replace(value, f"${{{name}}}")
    return text


def _value(name: str, location: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SpecError(f"{location!r} needs the environment variable {name}, which is not set")
    return value
