"""The dashboard's door: who gets in, and with what."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from helpers.browsing import HOST, OTHERS, TOKEN, Browser, browser_of, content, routes
from helpers.untrained import Driver

from dashboards.auth.middleware import Access, Guard
from dashboards.auth.sessions import Busy, Sessions, read_token
from nas.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna Dashboard's own


def test_without_a_session_nothing_is_shown_and_nothing_done(searched: Driver):
    outside, before = browser_of(searched, logged_in=False), content(searched)
    for method, path in routes(searched):
        for tried in {method, "GET", "HEAD", *OTHERS}:
            for cookie in ("", "nas-session=", "nas-session=guess"):
                outside.cookie = cookie
                answer = outside(tried, path)
                assert answer.status == 401, (tried, path)
                assert b"study" not in answer.body or b"Log in" in answer.body
    assert content(searched) == before


def test_the_door_itself_is_open(searched: Driver):
    outside = browser_of(searched, logged_in=False)
    for path in ("/login", "/assets/page.css", "/assets/login.js"):
        assert outside.get(path).status == 200
    for host in (HOST, "attacker.example", ""):
        assert (outside.get("/healthz", Host=host).status, outside.get("/healthz").text) == (
            200,
            "ok\n",
        )
    assert outside("POST", "/healthz").status == 401
    said = outside.get("/dashboard/studies/1?a=1")
    assert 'value="/dashboard/studies/1?a=1"' in said.text
    assert outside.get("/api/studies", Accept="application/json").body == b"log in first\n"
    assert outside("HEAD", "/").body == b""


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 30])
def test_a_wrong_token_is_refused(searched: Driver, token: str):
    outside = browser_of(searched, logged_in=False)
    answer = outside.log_in(token)
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers
    assert "This is not the token" in answer.text
    assert outside.get("/").status == 401


def test_a_session_is_a_cookie_that_no_script_and_no_other_site_sees(searched: Driver):
    guest = browser_of(searched, logged_in=False)
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
    secure = browser_of(searched, logged_in=False, encrypted=True).log_in(TOKEN)
    assert secure.headers["Set-Cookie"].endswith("; Secure")
    proxied = browser_of(searched, logged_in=False).log_in(
        TOKEN, Origin=f"https://{HOST}"
    )  # TLS ended before us
    assert proxied.headers["Set-Cookie"].endswith("; Secure")


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example", "https://evil.example", "/\\evil", "/a\r\nX: y", "javascript:alert(1)"],
)
def test_a_login_leads_nowhere_else(searched: Driver, wanted: str):
    assert browser_of(searched, logged_in=False).log_in(TOKEN, wanted).headers["Location"] == "/"


def test_a_login_is_short(searched: Driver):
    assert (
        browser_of(searched, logged_in=False)("POST", "/login", b"token=" + b"x" * 5000).status
        == 413
    )


def test_wrong_tokens_are_looked_at_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dashboards.auth.sessions._CHECK_S", 0.2)
    sessions, began = Sessions(TOKEN, delay_s=0.2), time.monotonic()
    guesses = [threading.Thread(target=sessions.log_in, args=(str(number),)) for number in range(4)]
    for guess in guesses:
        guess.start()
    for guess in guesses:
        guess.join()
    assert time.monotonic() - began >= 0.8
    assert sessions.log_in(TOKEN)


def test_a_long_queue_of_logins_is_turned_away(searched: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dashboards.auth.sessions._QUEUE_S", 0.01)
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
