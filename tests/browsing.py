"""A browser for tests: WSGI calls with the headers and cookies that a real one sends."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

HOST = "127.0.0.1:8080"
OWN = {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Browser:
    """Keeps its cookie, as a browser does."""

    app: Any
    headers: dict[str, str] = field(default_factory=lambda: dict(OWN))
    cookie: str = ""

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Answer:
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }  # fmt: skip
        sent = {**self.headers, "Cookie": self.cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.items() if value is not None}
        environ |= {"CONTENT_TYPE": sent.get("Content-Type") or ""}
        setup_testing_defaults(environ)
        began: list[Any] = []
        parts = self.app(environ, lambda *started: began.extend(started))
        answer = Answer(int(began[0].split()[0]), dict(began[1]), b"".join(parts))
        getattr(parts, "close", lambda: None)()
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].split(";")[0]
        return answer

    def get(self, path: str, **headers: str | None) -> Answer:
        return self("GET", path, **headers)

    def log_in(self, token: str, wanted: str = "/", **headers: str | None) -> Answer:
        return self("POST", "/login", urlencode({"token": token, "next": wanted}).encode(), **headers)
