"""Who may see the dashboard: one token for all, and a session for each browser that has shown
it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
import threading
import time
from pathlib import Path

from nas.errors import UserError

SESSION_S = 12 * 3600
MIN_TOKEN = 16  # characters
_MOST_SESSIONS = 1000
_QUEUE_S = 10  # how long a login waits for those before it
_CHECK_S = 0.02  # from one login to the next, right or wrong: fifty guesses a second at most


class Busy(Exception):
    """Too many are trying to log in."""


class Sessions:
    """Checks tokens, remembers sessions; a restart forgets them.

    Args:
        token: what a login must show.
        delay_s: what a wrong token costs who shows it; nobody else waits for that.
    """

    def __init__(self, token: str, delay_s: float = 0.5) -> None:
        self._token, self.delay_s = _digest(token), delay_s
        # By digest: how long looking a session up takes says nothing about it.
        self._ends: dict[bytes, float] = {}
        self._one_by_one = threading.Lock()

    def log_in(self, token: str) -> str | None:
        """Check a token, one login at a time.

        Returns:
            A new session, which a browser shows with every request; None for a wrong token.

        Raises:
            Busy: too many wrong ones are being tried.
        """
        if not self._one_by_one.acquire(timeout=_QUEUE_S):
            raise Busy
        try:
            time.sleep(min(_CHECK_S, self.delay_s))
            if hmac.compare_digest(_digest(token), self._token):
                return self._begin()
        finally:
            self._one_by_one.release()
        time.sleep(self.delay_s)
        return None

    def knows(self, session: str) -> bool:
        """Whether a session is open: it was begun here less than `SESSION_S` ago and not ended."""
        return self._ends.get(_digest(session), 0) > time.monotonic()

    def log_out(self, session: str) -> None:
        """End a session; one that is not open is ignored."""
        self._ends.pop(_digest(session), None)

    def _begin(self) -> str:
        now, session = time.monotonic(), secrets.token_urlsafe(32)
        latest = sorted((end, key) for key, end in self._ends.items() if end > now)[
            -_MOST_SESSIONS + 1 :
        ]
        self._ends = {key: end for end, key in latest} | {_digest(session): now + SESSION_S}
        return session


def new_token() -> str:
    """A random token of 192 bits as text."""
    return secrets.token_urlsafe(24)


def read_token(path: Path) -> str:
    """Read the token from a file.

    Raises:
        UserError: it cannot be read, others of this machine may read it too, or it is too short.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--token-file {str(path)!r} cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    if mode & stat.S_IROTH:
        raise UserError(
            f"--token-file {str(path)!r} may be read by everybody on this machine: chmod 600 it"
        )
    if len(text) < MIN_TOKEN or len(text.split()) != 1:
        raise UserError(
            f"--token-file {str(path)!r} must hold one word of at least {MIN_TOKEN} characters; "
            f"it has {len(text)}"
        )
    return text


def _digest(text: str) -> bytes:
    """SHA-256 of a text: of equal length, whatever the text, so that comparing tells nothing."""
    return hashlib.sha256(text.encode()).digest()
