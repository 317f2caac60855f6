"""The password of a database: nowhere that another person or a file of ours could show it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from helpers.commands import BIN, DEADLINE_S, Background, run_here
from helpers.servers import PostgresServer, free_port, web_server

PASSWORD = "s3cr@t/w:rd #%1"
SECRETS = [text.encode() for text in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), "s3cr")]
JOBS = (
    "import sys; from ray._raylet import GcsClient; "
    "print(GcsClient(sys.argv[1]).get_all_job_info())"
)


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
        if process.pid != os.getpid():
            no_secret(f"arguments of {process}", read_of(process, "cmdline"))
    started = driver.children(recursive=True)
    for process in started:
        no_secret(f"environment of {process}", read_of(process, "environ"))
    return [read_of(process, "cmdline").replace(b"\0", b" ").decode() for process in started]


def read_of(process: psutil.Process, name: str) -> bytes:
    """A file of the kernel about a process; empty where it has ended by now."""
    try:
        return Path(f"/proc/{process.pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize("how", ["flag", pytest.param("variable", marks=pytest.mark.long)])
def test_a_search_keeps_its_password(
    tmp_path: Path, digits: Path, url: str, how: str, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    environment = dict(os.environ) | ({"NAS_STORAGE": url} if how == "variable" else {})
    words = ["--storage", url] if how == "flag" else []

    def command(*arguments: str) -> str:
        with monkeypatch.context() as patch:
            if how == "variable":
                patch.setenv("NAS_STORAGE", url)
            done = run_here(*arguments, *words)
        assert done.code == 0, done.err
        no_secret(" ".join(arguments), (done.out + done.err).encode())
        return done.out

    submit = ["nas-submit", "--data", digits, "--study", how, "--output", tmp_path / "runs"]
    submit += ["--space", "tiny", "--detector", "fcos", "--image-size", "32", "--no-baselines"]
    submit += ["--epochs", "20", "--trials", "1", "--concurrent", "1", *words]
    with Background(tmp_path / "log", *submit, env=environment) as process:
        process.wait_until(lambda: "epoch 1/20" in process.printed())
        session = no_secret_in_a_running_search(psutil.Process(process.pid))
        assert process.wait() == 0, process.printed()

    assert no_secret_in_files(session) > 5
    command("nas", "list", "--json")
    assert '"COMPLETE"' in command("nas", "status", "--study", how, "--json")
    command("nas-export", "--study", how, "--no-onnx", "--out", str(tmp_path / "best"))
    assert no_secret_in_files(tmp_path) > 5  # the log, the bundle, the files of the trials
    dashboard(words, environment)


def no_secret_in_a_running_search(driver: psutil.Process) -> Path:
    """Neither in its processes nor in Ray's account of it; returns the folder of Ray's session."""
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
    return Path(session)


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
        said, _ = process.communicate(timeout=DEADLINE_S)
    no_secret("what the dashboard said", said)


def test_passwords_of_data_and_weights_stay_in_the_environment(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NAS_SECRET_127_0_0_1", quote(PASSWORD, safe=""))
    archive = shutil.make_archive(str(tmp_path / "digits"), "zip", digits)
    served = {"/d.zip": Path(archive).read_bytes()}
    storage = ["--storage", f"sqlite:///{tmp_path}/nas.db", "--study", "digits"]
    with web_server(served.get, user=f"me:{PASSWORD}") as server:
        where = server.replace("://", "://me:${NAS_SECRET_127_0_0_1}@")
        words = ["--data", f"{where}/d.zip", "--space", "tiny", "--detector", "fcos", "--local"]
        words += ["--image-size", "32", "--no-baselines", "--epochs", "1", "--trials", "1"]
        said = [run_here("nas-submit", *words, *storage)]
        lost = ["--set", f"recipe.weights={where}/lost.pt"]
        said += [run_here("nas-submit", *words, *lost, *storage[:2])]
        said += [run_here("nas", "status", *storage, "--json")]
        said += [run_here("nas", "report", *storage, "--out", "report.html")]
        said += [run_here("nas-export", *storage, "--no-onnx", "--out", "best")]
    assert [done.code for done in said] == [0, 2, 0, 0, 0], said
    no_secret("what was printed", "".join(done.out + done.err for done in said).encode())
    assert "${NAS_SECRET_127_0_0_1}" in Path("best/detector.yaml").read_text()
    assert no_secret_in_files(tmp_path) > 30
    dashboard(storage[:2], dict(os.environ))


def test_a_refused_password_is_not_repeated(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    storage = f"postgresql+psycopg://nas:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()}/nas"
    done = run_here("nas-submit", "--data", digits, "--storage", storage)
    assert done.code == 2
    assert "nas:***@127.0.0.1" in done.err
    no_secret("the refusal", (done.out + done.err).encode())
