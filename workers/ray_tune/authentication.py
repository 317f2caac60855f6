"""Ray's token: taken from where Ray keeps it, for nobody else to read.

`ray start --head` turns authentication on by itself where it finds a token, and a local `ray.init`
writes one; programs that join are told by `RAY_AUTH_MODE` alone (Ray 2.60). A cluster without
authentication takes no notice of a token.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from workers.ray_tune.ray_internals import read_authentication_again

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
WHERE = f"the variable {TOKEN}, the file that {TOKEN_FILE} names, or ~/.ray/auth_token"


def use_token() -> None:
    """Show the token, where there is one, to the cluster that this process joins."""
    if MODE not in os.environ and has_token():
        os.environ[MODE] = "token"
        read_authentication_again()


def keep_token_private() -> None:
    """Let nobody else read the token of this user, or a new one: Ray writes one that
    everybody can read.
    """
    if os.environ.get(MODE) == "disabled" or {TOKEN, TOKEN_FILE} & set(os.environ):
        return
    with suppress(OSError, RuntimeError):  # without a home folder Ray finds none either
        path = _own_file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(number, "w") as file:
                file.write(secrets.token_hex(32))  # as `ray get-auth-token --generate` makes it
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def has_token() -> bool:
    """Whether there is a token where Ray looks for one."""
    if os.environ.get(TOKEN):
        return True
    try:
        return Path(os.environ.get(TOKEN_FILE) or _own_file()).is_file()
    except (OSError, RuntimeError):
        return False


def _own_file() -> Path:
    return Path.home() / ".ray" / "auth_token"
