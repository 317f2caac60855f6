"""URLs that need a password or a token: it stays in the environment, and the URL names it.

`https://me:${NAS_SECRET_DATA_EXAMPLE_ORG}@data.example.org/cells.zip` is what is stored, shown and
sent to other machines; the variable is looked up where the URL is opened. Its name is that of the
host alone, with `_` for each dot and `__` for each hyphen: whoever sends a request or a bundle, or
writes to the database, can send no secret elsewhere.
"""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from nas.errors import SpecError

PREFIX = "NAS_SECRET_"
_NAMED = re.compile(r"\$\{(\w+)\}")
_AUTHORITY = re.compile(r"[\w.~:${}@%+\[\]-]*")  # nothing that libraries read in different ways
# Hosts that can name a variable: no two of them have one name.
_HOST = re.compile(r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*")
# Schemes whose URLs are sent to the host that they name, and to no other.
_SENT_TO_HOST = {"http", "https", "ftp", "sftp", "ssh", "smb", "webdav+http", "webdav+https"}
_SECRETS = "token|key|sig|secret|pass|credential|auth"
_SECRET_NAMES = re.compile(_SECRETS, re.IGNORECASE)
_INSTEAD = "put it into the environment variable {0}, and write ${{{0}}} in its place"
_NAMELESS = (
    "a URL can name an environment variable in its place where it is of http, https, ftp, sftp, "
    "ssh, smb or WebDAV, and its host of letters, digits, dots and hyphens"
)
LONGEST = 16  # characters of a value in a query that is no secret
# A URL, or what was meant to be one: a slash or the colon is missing, or there are too many.
_URL = r"[A-Za-z][\w+.-]{0,30}(?::/|//)"
_PASSWORD = re.compile(rf"(\b{_URL}/*[^\s/:]*:)(?!\$\{{\w+\}}@)\S*(?=@)")
_IN_QUERY = re.compile(rf"([?&][^=&\s]*(?:{_SECRETS})[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Write asterisks in the place of passwords and tokens of URLs in a text, also of what was
    meant to be one.
    """
    if "@" in text:
        text = _PASSWORD.sub(r"\1***", text)
    return _IN_QUERY.sub(r"\1***", text) if "?" in text else text


def check_no_secret(key: str, location: str, *, named: bool = True) -> None:
    """Refuse a URL that holds a secret itself, which would be stored and shown with it.

    Args:
        key: the key or flag that it is of, for the error.
        location: a path, or a URL.
        named: it may name the variable of its host.

    Raises:
        SpecError: it has a password, or a query with what looks like a token; or names a variable
            that it may not.
    """
    if _is_mistyped(location) and masked(location) != location:
        raise SpecError(f"{key} must be a path or a URL, SCHEME://HOST/PATH; got neither")
    if "://" not in location:
        return
    if not named and _NAMED.search(location):
        raise SpecError(
            f"{key} must name no environment variable: file systems behind URLs take their "
            "credentials from their own (AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    try:
        parts = urlsplit(location)
        variable = _variable(parts)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise SpecError(f"{key} must be a path or a URL; got one that cannot be parsed") from None
    values = [parts.password or "", *(value for _, value in query if len(value) > LONGEST)]
    values += [value for name, value in query if _SECRET_NAMES.search(name)]
    values += [name for name, value in query if not value and len(name) > LONGEST]
    others = set(_NAMED.findall(location)) - {variable}
    if others or any(_NAMED.sub("", value) for value in values):
        raise SpecError(
            f"{key} must hold no password or token, which would be stored and shown: "
            + (_INSTEAD.format(variable) if variable else _NAMELESS)
        )


def _is_mistyped(location: str) -> bool:
    """Whether a location was meant to be a URL: it begins as one and has no host."""
    has_host = "://" in location and ":///" not in location
    return not has_host and bool(re.match(_URL, location)) and not location.startswith("file:///")


def with_secrets(location: str) -> str:
    """Put the value of its host's environment variable in the place of its name in a URL; a path,
    and a URL that names none, stay.

    Raises:
        SpecError: the variable is not set, or is another than the host's.
    """
    if "://" not in location or not _NAMED.search(location):
        return location
    check_no_secret("a URL", location)
    return _NAMED.sub(lambda named: _value(named[1], location), location)


def without_secrets(text: str, location: str) -> str:
    """Put the name of a URL's environment variable in the place of its value in a text, an error of
    a library for example.
    """
    for name in _NAMED.findall(location):
        if value := os.environ.get(name):
            text = text.replace(value, f"${{{name}}}")
    return text


def _variable(parts: SplitResult) -> str | None:
    """Name of the variable that a URL may name; None where what it is sent to has no name of its
    own: hosts in other scripts, which look alike, and URLs within URLs, for example.
    """
    if not _AUTHORITY.fullmatch(parts.netloc):
        raise ValueError(parts.netloc)
    host = parts.hostname or ""
    sent_to_host = parts.scheme in _SENT_TO_HOST and "::" not in parts.geturl()
    if not (sent_to_host and parts.netloc.isascii() and _HOST.fullmatch(host)):
        return None
    return PREFIX + host.replace("-", "__").replace(".", "_").upper()


def _value(name: str, location: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SpecError(f"{location!r} needs the environment variable {name}, which is not set")
    return value
