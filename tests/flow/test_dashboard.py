"""The dashboard's door: who gets in, what nobody may do, that nothing is written by looking."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import optuna_dashboard
import pytest
from browsing import HOST, Browser
from driver import Driver

from dashboards.guard import Access, Guard
from dashboards.optuna_app import moved
from dashboards.pages import pages_app
from dashboards.serve import dashboard_app, make_dashboard, tls_context
from dashboards.sessions import Busy, Sessions, read_token
from nas.cli import main
from nas.cli.dashboard import checked_prefix
from nas.errors import StudyError, UserError
from nas.storage import open_storage

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna Dashboard's own
TOKEN = "correct-horse-battery"
OTHERS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "MOVE")
METHODS = ("GET", "HEAD", *OTHERS)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A study with a few trials, driven without training."""
    driver = Driver(tmp_path_factory.mktemp("dashboard"), **{"search.trials": 4})
    for value in (0.2, 0.4, 0.3):
        driver.train(value)
    return driver


def browser(driver: Driver, *, logged_in: bool = True, **options: object) -> Browser:
    allow_edit = bool(options.get("allow_edit"))
    storage = open_storage(driver.spec.storage, create=False, read_only=not allow_edit)
    access = Access(Sessions(TOKEN, delay_s=0), **options)
    made = Browser(Guard(dashboard_app(storage, access), access))
    if logged_in:
        assert made.log_in(TOKEN).status == 303
    return made


@pytest.fixture(scope="module")
def inside(searched: Driver) -> Browser:
    return browser(searched)


def routes(driver: Driver) -> list[tuple[str, str]]:
    """Every method and path of Optuna Dashboard and of our pages, numbers and names filled in."""
    storage = open_storage(driver.spec.storage, create=False)
    rules = [
        (route.method, route.rule) for app in (optuna_dashboard.wsgi(storage), pages_app(storage, "")) for route in app.routes
    ]
    assert len(rules) > 30
    return [(method, path_of(rule)) for method, rule in rules]


def path_of(rule: str) -> str:
    rule = rule.replace("<:re:(/.*)?>", "/studies/1").replace("<study_id:int>", "1").replace("<trial_id:int>", "1")
    filled = re.sub(r"<(number|id):int>", "1", rule)
    filled = filled.replace("<plot_type>", "timeline").replace("<name:re:[a-z]+[.](css|js)>", "plotly.js")
    filled = re.sub(r"<(artifact_id|history_id|filename|path|name)[^/]*>", "abc", filled)
    assert "<" not in filled, filled
    return filled


def content(driver: Driver) -> str:
    """All that the database holds, as a digest."""
    storage = open_storage(driver.spec.storage, create=False)
    with closing(storage.engine.raw_connection()) as connection:
        lines = "\n".join(connection.driver_connection.iterdump())
    return hashlib.sha256(lines.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------- without a login


def test_without_a_session_nothing_is_shown_and_nothing_done(searched: Driver):
    outside, before = browser(searched, logged_in=False), content(searched)
    for method, path in routes(searched):
        for tried in {method, *METHODS}:
            for cookie in ("", "nas-session=", "nas-session=guess"):
                outside.cookie = cookie
                answer = outside(tried, path)
                assert answer.status == 401, (tried, path)
                assert b"study" not in answer.body or b"Log in" in answer.body
    assert content(searched) == before


def test_the_door_itself_is_open(searched: Driver):
    outside = browser(searched, logged_in=False)
    for path in ("/login", "/assets/page.css", "/assets/login.js"):
        assert outside.get(path).status == 200
    for host in (HOST, "attacker.example", ""):
        assert (outside.get("/healthz", Host=host).status, outside.get("/healthz").text) == (200, "ok\n")
    assert outside("POST", "/healthz").status == 401
    said = outside.get("/dashboard/studies/1?a=1")
    assert 'value="/dashboard/studies/1?a=1"' in said.text
    assert outside.get("/api/studies", Accept="application/json").body == b"log in first\n"
    assert outside("HEAD", "/").body == b""


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 30])
def test_a_wrong_token_is_refused(searched: Driver, token: str):
    outside = browser(searched, logged_in=False)
    answer = outside.log_in(token)
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers
    assert "This is not the token" in answer.text
    assert outside.get("/").status == 401


def test_a_session_is_a_cookie_that_no_script_and_no_other_site_sees(searched: Driver):
    guest = browser(searched, logged_in=False)
    answer = guest.log_in(TOKEN, "/dashboard/studies/1")
    assert answer.headers["Location"] == "/dashboard/studies/1"
    flags = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert "Secure" not in flags
    assert TOKEN not in answer.headers["Set-Cookie"]
    assert guest.get("/").status == 200
    assert (
        guest.get("/", Cookie=f"other=a b; =; {guest.cookie}; bad").status == 200
    )  # other programs of this machine set some too
    stolen = guest.cookie
    assert guest("POST", "/logout").headers["Location"] == "/login"
    guest.cookie = stolen
    assert guest.get("/").status == 401


def test_cookies_are_for_tls_where_there_is_tls(searched: Driver):
    secure = browser(searched, logged_in=False, encrypted=True).log_in(TOKEN)
    assert secure.headers["Set-Cookie"].endswith("; Secure")
    proxied = browser(searched, logged_in=False).log_in(TOKEN, Origin=f"https://{HOST}")  # TLS ended before us
    assert proxied.headers["Set-Cookie"].endswith("; Secure")


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil", "/a\r\nX: y", "javascript:alert(1)"])
def test_a_login_leads_nowhere_else(searched: Driver, wanted: str):
    assert browser(searched, logged_in=False).log_in(TOKEN, wanted).headers["Location"] == "/"


def test_a_login_is_short(searched: Driver):
    assert browser(searched, logged_in=False)("POST", "/login", b"token=" + b"x" * 5000).status == 413


def test_wrong_tokens_cost_time_one_after_the_other():
    sessions, began = Sessions(TOKEN, delay_s=0.2), time.monotonic()
    guesses = [threading.Thread(target=sessions.log_in, args=(str(number),)) for number in range(4)]
    for guess in guesses:
        guess.start()
    for guess in guesses:
        guess.join()
    assert time.monotonic() - began >= 0.8
    assert sessions.log_in(TOKEN)


def test_a_long_queue_of_logins_is_turned_away(searched: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dashboards.sessions._QUEUE_S", 0.01)
    sessions = Sessions(TOKEN)
    with sessions._one_by_one, pytest.raises(Busy):
        sessions.log_in(TOKEN)
    access = Access(sessions)
    with sessions._one_by_one:
        assert Browser(Guard(lambda *_: [], access)).log_in(TOKEN).status == 429


def test_sessions_end(monkeypatch: pytest.MonkeyPatch):
    sessions = Sessions(TOKEN)
    session = sessions.log_in(TOKEN)
    assert sessions.knows(session)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 12 * 3600 + 1)
    assert not sessions.knows(session)


# ------------------------------------------------------------------------------------------------------------ logged in


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
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": None, "Origin": "https://evil.example"}, {"Sec-Fetch-Site": None, "Origin": "null"},
    {"Sec-Fetch-Site": None, "Origin": "http://127.0.0.1:9999"}, {"Sec-Fetch-Site": None, "Origin": None},
    {"Origin": "https://evil.example"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_site_changes_nothing_even_where_editing_is_allowed(searched: Driver, headers: dict[str, str | None]):
    editor, before = browser(searched, allow_edit=True), content(searched)
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
    assert inside.get("/api/studies", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1", "localhost.evil"])
def test_a_name_that_is_not_ours_is_refused(inside: Browser, host: str):
    assert inside.get("/api/studies", Host=host).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "10.0.0.7:8080", "[::1]:8080", "search.example"])
def test_our_names_are_known(searched: Driver, host: str):
    named = browser(searched, hosts=frozenset({"localhost", "search.example"}))
    assert named.get("/api/studies", Host=host).status == 200


def test_a_proxy_may_change_the_host(searched: Driver):
    guest = browser(searched, logged_in=False, hosts=frozenset({"localhost", "search.example"}))
    assert guest.log_in(TOKEN, Host="127.0.0.1:8080", Origin="https://search.example").status == 303


def test_editing_is_for_who_asks(tmp_path: Path):
    driver = Driver(tmp_path)
    driver.train()
    editor = browser(driver, allow_edit=True)
    note = b'{"version": 1, "body": "mine"}'
    assert editor("PUT", "/api/studies/1/note", note, Content_Type="application/json").status == 204
    assert editor("DELETE", "/api/studies/1", Content_Type="application/json").status == 204
    assert optuna.get_all_study_names(driver.study.storage) == []


def test_every_answer_has_the_headers(inside: Browser):
    for path in ("/", "/studies/1", "/api/studies", "/dashboard", "/static/bundle.js", "/nothing", "/login", "/csv/1"):
        headers = inside.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        policy = headers["Content-Security-Policy"]
        assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
        assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert "default-src 'none'" in inside.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in inside.get("/dashboard").headers["Content-Security-Policy"]


def test_the_dashboard_shows_the_study(searched: Driver, inside: Browser):
    (summary,) = json.loads(inside.get("/api/studies").body)["study_summaries"]
    shown = json.loads(inside.get(f"/api/studies/{summary['study_id']}").body)
    assert len(shown["trials"]) == 3
    attributes = {entry["key"]: entry["value"] for entry in shown["trials"][0]["user_attrs"]}
    assert attributes["layout"] == searched.trial(0).user_attrs["layout"]
    # what the prediction leaves of the budget, in the form that this version reads
    assert shown["trials"][0]["constraints"] == pytest.approx([searched.trial(0).constraints["memory_predicted"]])
    assert 'id="nas-beside" href="/"' in inside.get("/dashboard").text


# ---------------------------------------------------------------------------------------------------- below a path, with TLS


@pytest.mark.parametrize("cut", [False, True], ids=["whole path", "cut by the proxy"])
def test_everything_works_below_a_path(searched: Driver, cut: bool):
    below, at = browser(searched, prefix="/nas"), "" if cut else "/nas"
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
    answer = browser(searched, prefix="/nas", logged_in=False).log_in(TOKEN, "/studies/1")
    assert (answer.headers["Location"], "Path=/nas;" in answer.headers["Set-Cookie"]) == ("/nas/studies/1", True)


def test_a_later_dashboard_that_cannot_move_is_refused():
    with pytest.raises(StudyError, match="cannot be served with --prefix"):
        moved("fetch('/api/meta')", "/nas")


@pytest.mark.parametrize(("given", "prefix"), [("", ""), ("/", ""), ("nas", "/nas"), ("/nas/", "/nas"), ("/a/b-c", "/a/b-c")])
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
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
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
    with socket.create_connection(("127.0.0.1", encrypted)):  # says nothing
        with urllib.request.urlopen(f"https://localhost:{encrypted}/healthz", context=context, timeout=10) as answer:
            assert answer.read() == b"ok\n"
        form = urllib.request.Request(
            f"https://localhost:{encrypted}/login", f"token={TOKEN}".encode(), {"Origin": f"https://localhost:{encrypted}"}
        )
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor())
        with opener.open(form, timeout=10) as answer:
            assert b"<h1>Studies</h1>" in answer.read()


def test_a_certificate_that_is_none_is_one_line(certificate: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(UserError, match=r"certificate in '.*nowhere' cannot be used"):
        tls_context(tmp_path / "nowhere", None)
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(UserError, match="cannot be used"):
        tls_context(tmp_path / "text", certificate[1])


# --------------------------------------------------------------------------------------------------------------- the token


def test_a_token_file_is_for_its_owner(tmp_path: Path):
    path = tmp_path / "token"
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_token(path)
    for text, said in (("short", "at least 16 characters"), ("two words " * 3, "one word")):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(UserError, match=said):
            read_token(path)
    path.write_text(TOKEN + "\n")
    assert read_token(path) == TOKEN
    path.chmod(0o644)
    with pytest.raises(UserError, match="everybody on this machine: chmod 600"):
        read_token(path)


def test_a_taken_port_is_one_line(searched: Driver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["nas", "dashboard", "--storage", searched.spec.storage, "--port", str(port)])
        with pytest.raises(SystemExit) as ended:
            main.main()
    assert ended.value.code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["printed", "file"])
def test_the_command_says_where_it_is(searched: Driver, tmp_path: Path, how: str):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    words = ["--token-file", str(token)] if how == "file" else []
    command = [str(Path(sys.executable).parent / "nas-dashboard"), "--storage", searched.spec.storage, "--port", "0"]
    process = subprocess.Popen(
        [*command, *words, "--host", "0.0.0.0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert ("login#" in line) == (how == "printed")
        assert TOKEN not in line
        port = re.search(r":(\d+)/", line)[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            assert answer.read() == b"ok\n"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "the token travels there as it is" in said
