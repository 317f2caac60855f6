"""The password of a database: nowhere that another person or a file of ours could show it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from helpers.servers import PostgresServer, free_port

PASSWORD = "s3cr@t/w:rd #%1"
SECRETS = [text.encode() for text in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), "s3cr")]
JOBS = (
    "import sys; from ray._raylet import GcsClient; "
    "print(GcsClient(sys.argv[1]).get_all_job_info())"
)
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.server.psql(f"CREATE ROLE nas SUPERUSER LOGIN PASSWORD '{PASSWORD}';")
    assert "postgres:@/" in server.url
    yield server.url.replace("postgres:@/", f"nas:{quote(PASSWORD, safe='')}@/")
    server.end()


def no_secret(where: str, content: bytes) -> None:
    for secret in SECRETS:
        assert secret not in content, (
            f"{where}: ...{content[max(0, content.find(secret) - 80) :][:200]!r}"
        )


def no_secret_in_files(folder: Path) -> int:
    """How many files were looked at."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        no_secret(str(path), path.read_bytes())
    return len(files)


def no_secret_in_processes(driver: psutil.Process) -> list[str]:
    """Arguments of all processes of the machine, environments of what the driver started; returns
    those arguments.
    """
    for process in psutil.process_iter():
        with_arguments = Path(f"/proc/{process.pid}/cmdline")
        if process.pid != os.getpid() and with_arguments.exists():
            no_secret(f"arguments of {process}", with_arguments.read_bytes())
    started = driver.children(recursive=True)
    for process in started:
        no_secret(f"environment of {process}", Path(f"/proc/{process.pid}/environ").read_bytes())
    return [" ".join(process.cmdline()) for process in started]


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_search_keeps_its_password(tmp_path: Path, digits: Path, url: str, how: str):
    pytest.importorskip("ray")
    environment = dict(os.environ) | ({"NAS_STORAGE": url} if how == "variable" else {})
    words = ["--storage", url] if how == "flag" else []

    def command(*arguments: str) -> bytes:
        done = subprocess.run(
            [BIN / arguments[0], *arguments[1:], *words],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        no_secret(" ".join(arguments), done.stdout + done.stderr)
        return done.stdout

    submit = [
        BIN / "nas-submit",
        "--data",
        digits,
        "--study",
        how,
        "--output",
        tmp_path / "runs",
        "--space",
        "tiny",
    ]
    submit += ["--detector", "fcos", "--image-size", "32", "--no-baselines"]
    submit += ["--epochs", "3", "--trials", "2", "--concurrent", "1", *words]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(submit, stdout=log, stderr=log, env=environment)
    wait_for(lambda: b"epoch 1/3" in (tmp_path / "log").read_bytes(), process)
    driver = psutil.Process(process.pid)
    arguments = no_secret_in_processes(driver)
    (gcs,) = {match[1] for match in re.finditer(r"--gcs-address=(\S+)", " ".join(arguments))}
    (session,) = {
        match[0] for match in re.finditer(r"/\S*?/session_[-_\d]+(?=[/\s]|$)", " ".join(arguments))
    }
    (raylet,) = [child for child in driver.children() if "raylet" in child.name()]
    asked = [sys.executable, "-c", JOBS, gcs]
    jobs = subprocess.run(
        asked, env=raylet.environ(), capture_output=True, check=True
    ).stdout  # it has Ray's token
    assert b"nas-submit" in jobs
    no_secret("Ray's jobs and their environments", jobs)
    assert process.wait(timeout=120) == 0, (tmp_path / "log").read_text()

    assert no_secret_in_files(Path(session)) > 5
    command("nas", "list", "--json")
    assert b'"COMPLETE"' in command("nas", "status", "--study", how, "--json")
    command("nas-export", "--study", how, "--no-onnx", "--out", str(tmp_path / "best"))
    assert no_secret_in_files(tmp_path) > 5  # the log, the bundle, the files of the trials
    dashboard(words, environment)


def dashboard(words: list[str], environment: dict[str, str]) -> None:
    """Its pages, also behind the login, and its arguments."""
    port = free_port()
    process = subprocess.Popen(
        [BIN / "nas-dashboard", "--port", str(port), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout
        said = process.stdout.readline()
        no_secret("the dashboard's first line", said)
        token = said.split(b"#")[1].split()[0]
        no_secret("arguments of the dashboard", Path(f"/proc/{process.pid}/cmdline").read_bytes())
        at = f"http://127.0.0.1:{port}"
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        browser.open(
            urllib.request.Request(f"{at}/login", b"token=" + token, {"Origin": at})
        ).close()
        pages = (
            "",
            "studies/1",
            "studies/1/trials/0",
            "dashboard",
            "api/meta",
            "api/studies",
            "api/studies/1",
            "csv/1",
        )
        for page in pages:
            with browser.open(f"{at}/{page}") as answer:
                no_secret(page, answer.read())
        with pytest.raises(urllib.error.HTTPError) as refused:
            browser.open(f"{at}/api/nothing")
        no_secret("an error", refused.value.read())
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    no_secret("what the dashboard said", said)


def test_a_refused_password_is_not_repeated(tmp_path: Path, digits: Path):
    storage = f"postgresql+psycopg://nas:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()}/nas"
    command = [BIN / "nas-submit", "--data", digits, "--storage", storage]
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert b"nas:***@127.0.0.1" in done.stderr
    no_secret("the refusal", done.stdout + done.stderr)


def wait_for(condition, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
