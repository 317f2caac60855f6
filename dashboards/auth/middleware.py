"""What stands before every page: the right host, no other site's doing, a login, nothing changed
unless that is allowed.

Refusals, in this order. 403: a host name that is not ours (an attacker's name that resolves to this
machine: DNS rebinding), or a request that another site makes in a browser. 401: no session. 405: a
method that changes something, where that is not allowed. Optuna Dashboard 0.21 has no GET route
that changes a study; everything that does is refused by its method.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from dashboards.auth.sessions import SESSION_S, Busy, Sessions
from dashboards.templating import page

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
READING = ("GET", "HEAD")
PUBLIC = ("/assets/page.css", "/assets/login.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' "
    "data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers say that a form's origin is null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FORM_BYTES = 4096
_OURS = re.compile(
    r"/(?:[\w.~%-][\w.~%/-]*)?(?:\?[\w.~%=&,+-]*)?", re.ASCII
)  # a path below the prefix, never //elsewhere


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Args:
        sessions: checks the token.
        cookie: name of the session's cookie; the server adds its port, which cookies do not tell
            apart.
        hosts: names that browsers may know this server by, beside addresses, which nobody can make
            point elsewhere.
        prefix: path that all pages are below, `/nas`, or nothing; a reverse proxy may cut it off or
            not.
        allow_edit: what Optuna Dashboard can change may be changed.
        encrypted: TLS ends here.
    """

    sessions: Sessions
    cookie: str = "nas-session"
    hosts: frozenset[str] = frozenset({"localhost"})
    prefix: str = ""
    allow_edit: bool = False
    encrypted: bool = False


class Guard:
    """A WSGI application around another one.

    Args:
        app: sees only requests that may pass, the prefix in `SCRIPT_NAME`.
        access: what may pass.
    """

    def __init__(self, app: WsgiApp, access: Access) -> None:
        self.app, self.access = app, access

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        below = path.removeprefix(self.access.prefix)
        environ["PATH_INFO"] = path = below if below[:1] in ("", "/") else path
        environ["SCRIPT_NAME"] = self.access.prefix
        answer = _Answer(environ, start_response)
        reading, session = environ["REQUEST_METHOD"] in READING, self._session(environ)
        if path == "/healthz" and reading:
            return answer.text("200 OK", "ok")
        if refused := self._foreign(environ):
            return answer.text("403 Forbidden", refused)
        if self.access.sessions.knows(session):
            return self._inside(environ, answer, session)
        if path == "/login":
            return (
                self._log_in(environ, answer) if not reading else self._form(answer, "200 OK", "/")
            )
        return (
            self.app(environ, answer.guarded)
            if path in PUBLIC and reading
            else self._ask(environ, answer, path)
        )

    def _inside(self, environ: dict[str, Any], answer: _Answer, session: str) -> Iterable[bytes]:
        """Answer a request that has a session."""
        does, reading = (
            (environ["REQUEST_METHOD"], environ["PATH_INFO"]),
            environ["REQUEST_METHOD"] in READING,
        )
        if does == ("POST", "/logout"):
            self.access.sessions.log_out(session)
            return answer.go(self._at("/login"), ("Set-Cookie", self._cookie("", 0, environ)))
        if does == ("POST", "/login"):
            return self._log_in(environ, answer)
        if not reading and not self.access.allow_edit:
            allow = ("Allow", ", ".join(READING))
            return answer.text(
                "405 Method Not Allowed", "this dashboard is for reading only: --allow-edit", allow
            )
        return (
            answer.go(self._at("/#")) if does[1] == "/login" else self.app(environ, answer.guarded)
        )

    def _foreign(self, environ: dict[str, Any]) -> str | None:
        """Why a request is refused for its host or the site that makes it; None where it is not."""
        host, safe = environ.get("HTTP_HOST", ""), environ["REQUEST_METHOD"] in READING
        if not self._is_ours(host):
            return (
                f"unknown host {host!r}: name it with --allow-host where this dashboard is "
                "published under it"
            )
        site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
        if safe:
            opened = (
                environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
                and environ.get("HTTP_SEC_FETCH_DEST") == "document"
            )
            return (
                None
                if site in (None, "same-origin", "none") or opened
                else "another site may not use this one"
            )
        same = site in (None, "same-origin") and (origin is None or self._same_origin(origin, host))
        return (
            None
            if same and (site or origin)
            else "only this site's own pages may change anything here"
        )

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.access.hosts or _is_address(name)

    def _same_origin(self, origin: str, host: str) -> bool:
        """A proxy may have changed the host on the way: then a name that we are published under
        counts, but none of this machine's, where others may listen on other ports.
        """
        try:
            there = urlsplit(origin)
        except ValueError:
            return False
        name = there.hostname or ""
        published = name in self.access.hosts - names_of_machine() and not _is_address(name)
        return there.netloc == host or published

    def _session(self, environ: dict[str, Any]) -> str:
        pairs = (part.strip().partition("=") for part in environ.get("HTTP_COOKIE", "").split(";"))
        return next((value for name, _, value in pairs if name == self.access.cookie), "")

    def _ask(
        self, environ: dict[str, Any], answer: _Answer, path: str, said: str = ""
    ) -> Iterable[bytes]:
        if "text/html" not in environ.get("HTTP_ACCEPT", ""):
            return answer.text("401 Unauthorized", "log in first")
        query = environ.get("QUERY_STRING", "")
        wanted = quote(path, safe="/~", encoding="latin-1") + (f"?{query}" if query else "")
        wanted = wanted if _OURS.fullmatch(wanted) else "/"
        return self._form(answer, "401 Unauthorized", wanted, said)

    def _form(self, answer: _Answer, status: str, wanted: str, said: str = "") -> Iterable[bytes]:
        return answer.html(status, page("login.html", self.access.prefix, next=wanted, said=said))

    def _log_in(self, environ: dict[str, Any], answer: _Answer) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return self._ask(environ, answer, "/")
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > _FORM_BYTES:
            return answer.text("413 Content Too Large", "a login is one token")
        form = parse_qs(environ["wsgi.input"].read(int(length)).decode(errors="replace"))
        wanted = form.get("next", ["/"])[0]
        wanted = wanted if _OURS.fullmatch(wanted) else "/"
        try:
            session = self.access.sessions.log_in(form.get("token", [""])[0].strip())
        except Busy:
            return answer.text(
                "429 Too Many Requests",
                "too many logins: try again in a minute",
                ("Retry-After", "60"),
            )
        if session is None:
            return self._ask(environ, answer, wanted, "This is not the token.")
        return answer.go(
            self._at(wanted), ("Set-Cookie", self._cookie(session, SESSION_S, environ))
        )

    def _cookie(self, session: str, age_s: int, environ: dict[str, Any]) -> str:
        """Only over TLS where the browser came that way, to us or to a proxy: the form's origin
        tells.
        """
        secure = self.access.encrypted or environ.get("HTTP_ORIGIN", "").startswith("https:")
        path, safe = self.access.prefix or "/", "; Secure" if secure else ""
        return (
            f"{self.access.cookie}={session}; Path={path}; Max-Age={age_s}; HttpOnly; "
            f"SameSite=Strict{safe}"
        )

    def _at(self, path: str) -> str:
        return self.access.prefix + path


class _Answer:
    """Makes answers to one request, with the headers that all answers have."""

    def __init__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        self.environ, self.start_response = environ, start_response

    def text(self, status: str, text: str, *headers: tuple[str, str]) -> Iterable[bytes]:
        return self._send(status, "text/plain", f"{text}\n", *headers)

    def html(self, status: str, html: str) -> Iterable[bytes]:
        return self._send(status, "text/html", html)

    def go(self, place: str, *headers: tuple[str, str]) -> Iterable[bytes]:
        return self._send("303 See Other", "text/plain", "", ("Location", place), *headers)

    def guarded(self, status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        """`start_response` that adds what an application has not set itself."""
        has = {name.lower() for name, _ in headers}
        path = self.environ["PATH_INFO"]
        wanted = {
            **_HEADERS,
            "Cache-Control": "no-cache"
            if path.startswith(("/static/", "/assets/"))
            else "no-store",
        }
        return self.start_response(
            status, headers + [item for item in wanted.items() if item[0].lower() not in has], *more
        )

    def _send(
        self, status: str, kind: str, body: str, *headers: tuple[str, str]
    ) -> Iterable[bytes]:
        content = body.encode()
        about = [
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(content))),
            *headers,
        ]
        self.guarded(status, about)
        return [] if self.environ["REQUEST_METHOD"] == "HEAD" else [content]


@cache
def names_of_machine() -> frozenset[str]:
    """Names by which this machine knows itself, in lower case; asked for once, for a name server
    may take seconds.
    """
    names = {"localhost", socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower() for name in names)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
