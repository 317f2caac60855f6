"""Behind the dashboard's door: what nobody may do, that nothing is written by looking, where it is
served.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from helpers.browsing import OTHERS, TOKEN, Browser, browser_of, content, routes
from helpers.commands import BIN, DEADLINE_S, Run
from helpers.untrained import Driver

from dashboards.auth.middleware import Access
from dashboards.auth.sessions import Sessions
from dashboards.connections import ASK_S
from dashboards.optuna_dashboard import rewrite_paths
from dashboards.server import make_dashboard, tls_context
from nas.cli.dashboard import checked_prefix
from nas.errors import StudyError, UserError
from nas.study.storage import open_storage

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna Dashboard's own


def test_every_method_that_changes_something_is_refused(searched: Driver, inside: Browser):
    before = content(searched)
    walked = routes(searched)
    assert {method for method, _ in walked} == {"GET", "POST", "PUT", "DELETE"}
    for method, path in walked:
        for tried in {method, *OTHERS} - {"GET"}:
            answer = inside(tried, path, b"{}", Content_Type="application/json")
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD"), (tried, path)
    assert content(searched) == before


def test_looking_at_everything_changes_nothing(searched: Driver, inside: Browser):
    before = content(searched)
    seen = {path: inside.get(path).status for method, path in routes(searched) if method == "GET"}
    assert seen["/api/studies"] == seen["/dashboard/studies/1"] == seen["/studies/1"] == 200
    assert content(searched) == before


def test_the_database_itself_refuses_changes(searched: Driver):
    storage = open_storage(searched.spec.storage, create=False, read_only=True)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        optuna.create_study(storage=storage, study_name="other")
    with pytest.raises(optuna.exceptions.StorageInternalError):
        optuna.delete_study(study_name=searched.spec.study, storage=storage)


def test_a_server_refuses_changes_too(database: str):
    optuna.create_study(storage=open_storage(database, create=True), study_name="kept")
    storage = open_storage(database, create=False, read_only=True)
    for _ in range(3):  # whatever connection of the pool it is
        with pytest.raises(Exception, match=r"(?i)read.only|commit"):
            optuna.create_study(storage=storage, study_name="other")
    assert "kept" in optuna.get_all_study_names(storage)
    optuna.delete_study(study_name="kept", storage=open_storage(database, create=False))


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": None, "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": None, "Origin": "null"},
    {"Sec-Fetch-Site": None, "Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": None, "Origin": None},
    {"Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_site_changes_nothing_even_where_editing_is_allowed(
    searched: Driver, headers: dict[str, str | None]
):
    editor, before = browser_of(searched, allow_edit=True), content(searched)
    editor.headers |= headers
    for method, path in routes(searched):
        if method != "GET":
            assert editor(method, path, b"{}").status == 403, (method, path)
    assert editor.log_in(TOKEN).status == 403
    assert content(searched) == before


def test_another_site_can_link_here_but_not_embed(inside: Browser):
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Origin": None}
    assert inside.get("/", Sec_Fetch_Dest="document", **link).status == 200
    assert inside.get("/", Sec_Fetch_Dest="iframe", **link).status == 403
    assert (
        inside.get("/api/studies", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status
        == 403
    )


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1", "localhost.evil"],
)
def test_a_name_that_is_not_ours_is_refused(inside: Browser, host: str):
    assert inside.get("/api/studies", Host=host).status == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8080", "10.0.0.7:8080", "[::1]:8080", "search.example"]
)
def test_our_names_are_known(searched: Driver, host: str):
    named = browser_of(searched, hosts=frozenset({"localhost", "search.example"}))
    assert named.get("/api/studies", Host=host).status == 200


def test_a_proxy_may_change_the_host(searched: Driver):
    guest = browser_of(searched, logged_in=False, hosts=frozenset({"localhost", "search.example"}))
    assert guest.log_in(TOKEN, Host="127.0.0.1:8080", Origin="https://search.example").status == 303


def test_editing_is_for_who_asks(tmp_path: Path):
    driver = Driver(tmp_path)
    driver.train()
    editor = browser_of(driver, allow_edit=True)
    note = b'{"version": 1, "body": "mine"}'
    assert editor("PUT", "/api/studies/1/note", note, Content_Type="application/json").status == 204
    assert editor("DELETE", "/api/studies/1", Content_Type="application/json").status == 204
    assert optuna.get_all_study_names(driver.study.storage) == []


def test_every_answer_has_the_headers(inside: Browser):
    for path in (
        "/",
        "/studies/1",
        "/api/studies",
        "/dashboard",
        "/static/bundle.js",
        "/nothing",
        "/login",
        "/csv/1",
    ):
        headers = inside.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        policy = headers["Content-Security-Policy"]
        assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
        assert headers["Cache-Control"] == (
            "no-cache" if path.startswith("/static") else "no-store"
        )
    assert "default-src 'none'" in inside.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in inside.get("/dashboard").headers["Content-Security-Policy"]


def test_the_dashboard_shows_the_study(searched: Driver, inside: Browser):
    (summary,) = json.loads(inside.get("/api/studies").body)["study_summaries"]
    shown = json.loads(inside.get(f"/api/studies/{summary['study_id']}").body)
    assert len(shown["trials"]) == 3
    attributes = {entry["key"]: entry["value"] for entry in shown["trials"][0]["user_attrs"]}
    assert attributes["layout"] == searched.trial(0).user_attrs["layout"]
    # what the prediction leaves of the budget, in the form that this version reads
    assert shown["trials"][0]["constraints"] == pytest.approx(
        [searched.trial(0).constraints["memory_predicted"]]
    )
    assert 'id="nas-beside" href="/"' in inside.get("/dashboard").text


@pytest.mark.parametrize("cut", [False, True], ids=["whole path", "cut by the proxy"])
def test_everything_works_below_a_path(searched: Driver, cut: bool):
    below, at = browser_of(searched, prefix="/nas"), "" if cut else "/nas"
    assert below.get(f"{at}/studies/1").status == 200
    for path in ("/", "/dashboard", "/studies/1", "/studies/1/trials/0", "/login"):
        absolute = re.findall(r'(?:href|src|action)="(/[^"]*)"', below.get(f"{at}{path}").text)
        assert all(place.startswith("/nas/") for place in absolute), absolute
    script = below.get(f"{at}/static/bundle.js")
    text = gzip.decompress(script.body).decode()
    assert 'url_prefix:"/nas/dashboard"' in text
    assert "baseURL}/nas/api/studies`" in text
    assert not re.search(r"[`\"'](/api|/csv|/artifacts|/static|/dashboard)/", text)
    assert below.get(f"{at}/api/studies").status == 200
    answer = browser_of(searched, prefix="/nas", logged_in=False).log_in(TOKEN, "/studies/1")
    assert (answer.headers["Location"], "Path=/nas;" in answer.headers["Set-Cookie"]) == (
        "/nas/studies/1",
        True,
    )


def test_a_later_dashboard_that_cannot_move_is_refused():
    with pytest.raises(StudyError, match="cannot be served with --prefix"):
        rewrite_paths("fetch('/api/meta')", "/nas")


@pytest.mark.parametrize(
    ("given", "prefix"),
    [("", ""), ("/", ""), ("nas", "/nas"), ("/nas/", "/nas"), ("/a/b-c", "/a/b-c")],
)
def test_prefixes_are_normal(given: str, prefix: str):
    assert checked_prefix(given) == prefix


@pytest.mark.parametrize("given", ["/a b", "/<script>", "/..", "/ä", '/a"'])
def test_odd_prefixes_are_refused(given: str):
    with pytest.raises(UserError, match="--prefix must be a path"):
        checked_prefix(given)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def encrypted(searched: Driver, certificate: tuple[Path, Path]) -> Iterator[int]:
    storage = open_storage(searched.spec.storage, create=False, read_only=True)
    access = Access(Sessions(TOKEN, delay_s=0), encrypted=True)
    server = make_dashboard(storage, access, tls=tls_context(*certificate))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_tls_and_a_slow_client_that_delays_nobody(encrypted: int, certificate: tuple[Path, Path]):
    context = ssl.create_default_context(cafile=certificate[0])
    in_time = ASK_S - 5  # before the one that says nothing is dropped
    with socket.create_connection(("127.0.0.1", encrypted)):  # says nothing
        with urllib.request.urlopen(
            f"https://localhost:{encrypted}/healthz", context=context, timeout=in_time
        ) as answer:
            assert answer.read() == b"ok\n"
        form = urllib.request.Request(
            f"https://localhost:{encrypted}/login",
            f"token={TOKEN}".encode(),
            {"Origin": f"https://localhost:{encrypted}"},
        )
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor()
        )
        with opener.open(form, timeout=in_time) as answer:
            assert b"<h1>Studies</h1>" in answer.read()


def test_a_certificate_that_is_none_is_one_line(certificate: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(UserError, match=r"certificate in '.*nowhere' cannot be used"):
        tls_context(tmp_path / "nowhere", None)
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(UserError, match="cannot be used"):
        tls_context(tmp_path / "text", certificate[1])


def test_a_taken_port_is_one_line(searched: Driver, nas: Run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = nas("dashboard", "--storage", searched.spec.storage, "--port", port)
    assert refused.code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in refused.err


@pytest.mark.parametrize("how", ["printed", "file"])
def test_the_command_says_where_it_is(searched: Driver, tmp_path: Path, how: str):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    words = ["--token-file", str(token)] if how == "file" else []
    command = [BIN / "nas-dashboard", "--storage", searched.spec.storage, "--port", "0"]
    process = subprocess.Popen(
        [*command, *words, "--host", "0.0.0.0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert ("login#" in line) == (how == "printed")
        assert TOKEN not in line
        port = re.search(r":(\d+)/", line)[1]
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/healthz", timeout=DEADLINE_S
        ) as answer:
            assert answer.read() == b"ok\n"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_S)
    assert "the token travels there as it is" in said
