"""A real browser logs in, looks at a study that was really searched, and opens the report from
disk.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.commands import BIN, DEADLINE_S, run_here
from helpers.studies import trained_search
from PIL import Image

from nas.search.search import Search

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "device_scale_factor": 2,
    },
}
PLOTS = 8
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def study(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    flags = {
        "recipe.epochs": 3,
        "search.trials": 5,
        "search.baselines": False,
        "study": "<img src=x onerror=alert(1)>",
    }
    return trained_search(tmp_path_factory.mktemp("browsed"), digits, **flags)


@pytest.fixture(scope="module", params=["", "/nas"], ids=["root", "prefix"])
def address(request: pytest.FixtureRequest, study: Search) -> Iterator[str]:
    """What the command printed."""
    words = [
        "--storage",
        study.spec.storage,
        "--port",
        "0",
        *(["--prefix", request.param] if request.param else []),
    ]
    process = subprocess.Popen(
        [str(BIN / "nas-dashboard"), *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield process.stdout.readline().split()[0]
    process.terminate()
    process.communicate(timeout=DEADLINE_S)


def base_of(address: str) -> str:
    return address.partition("/login")[0]


class Page:
    """A tab that remembers what it asked for and what it complained of."""

    def __init__(self, chromium: Any, screen: str) -> None:
        self.context = chromium.new_context(**SCREENS[screen])
        self.tab = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        self.tab.on(
            "dialog",
            lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()),
        )

    def drawn(self, count: int) -> None:
        """All figures are there, and nothing is wider than the screen."""
        self.tab.locator("figure.plot .main-svg:first-child").nth(count - 1).wait_for()
        assert self.tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    def keep(self, name: str) -> None:
        """A screenshot, where somebody wants to look at it."""
        if folder := os.environ.get("NAS_SCREENSHOTS"):
            self.tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_person_finds_everything(chromium: Any, address: str, study: Search, screen: str):
    page, base = Page(chromium, screen), base_of(address)
    page.tab.goto(address)
    page.tab.wait_for_url(f"{base}/")
    assert "#" not in page.tab.url  # the token is not left in the history
    page.tab.click("text=Plots, note and trials")
    page.drawn(PLOTS)
    page.keep(f"study-{screen}")
    assert page.tab.inner_text("h1") == study.spec.study
    assert "nas-export" in page.tab.inner_text("pre")
    best = page.tab.locator("table").first.locator("tbody a").first
    best.click()
    page.drawn(1)
    page.tab.wait_for_load_state("networkidle")
    for picture in page.tab.locator("figure img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert page.tab.locator("figure img").count() == 4
    assert page.tab.locator("svg rect.stage").count() == 4
    page.keep(f"trial-{screen}")
    with page.tab.expect_download() as download:
        page.tab.click("text=curves.csv")
    assert Path(download.value.path()).read_text().startswith("epoch,loss")
    assert page.complaints == []
    assert all(url.startswith((base, "data:", "blob:")) for url in page.requests), page.requests
    page.context.close()


def test_a_page_follows_a_search(chromium: Any, address: str, study: Search):
    """What changes in the database comes into the page, which keeps what was opened in it."""
    page, base = Page(chromium, "desktop"), base_of(address)
    known = optuna.load_study(study_name=study.spec.study, storage=study.spec.storage)
    with study.lease():
        running = known.ask()
        study._lease.take(running.number)
        page.tab.goto(address)
        page.tab.wait_for_url(f"{base}/")
        page.tab.click("text=Plots, note and trials")
        page.drawn(PLOTS)
        assert page.tab.locator("[data-running]").count() == 1
        page.tab.evaluate("document.querySelector('main details:last-of-type').open = true")
        known.tell(running, state=optuna.trial.TrialState.FAIL)
    page.tab.evaluate("follow()")
    page.tab.locator("[data-running]").wait_for(state="detached")
    page.drawn(PLOTS)
    assert page.tab.evaluate("document.querySelector('main details:last-of-type').open")
    assert page.complaints == []
    page.context.close()


def test_optuna_dashboard_works_inside(chromium: Any, address: str, study: Search):
    page, base = Page(chromium, "desktop"), base_of(address)
    page.tab.goto(address)
    page.tab.wait_for_url(f"{base}/")
    page.tab.click("text=Optuna Dashboard")
    page.tab.wait_for_selector("text=Hyperparameter Importance")
    page.keep("optuna")
    page.tab.reload()  # its own routes are ours to answer, too
    page.tab.wait_for_selector("text=Hyperparameter Importance")
    page.tab.click("text=Search plots and note")
    page.drawn(PLOTS)
    assert re.fullmatch(f"{base}/studies/\\d+", page.tab.url)
    assert all(url.startswith((base, "data:", "blob:")) for url in page.requests), page.requests
    page.context.close()


def test_a_wrong_token_and_a_way_out(chromium: Any, address: str):
    page, base = Page(chromium, "desktop"), base_of(address)
    page.tab.goto(f"{base}/studies/1")
    page.tab.fill("#token", "not the token")
    page.tab.click("button")
    assert "This is not the token" in page.tab.inner_text("[role=alert]")
    page.tab.fill("#token", address.split("#")[1])
    page.tab.click("button")
    page.drawn(PLOTS)
    assert page.tab.url == f"{base}/studies/1"  # where the person wanted to go
    assert page.tab.evaluate("document.cookie") == ""
    page.tab.click("text=Log out")
    page.tab.wait_for_selector("#token")
    page.tab.goto(f"{base}/studies/1")
    assert page.tab.locator("#token").count() == 1
    page.context.close()


def test_another_site_gets_nothing_from_this_browser(
    chromium: Any, address: str, study: Search, tmp_path: Path
):
    """A page on another host, opened by somebody who is logged in here: it shows nothing and
    deletes nothing.
    """
    page, base = Page(chromium, "desktop"), base_of(address)
    page.tab.goto(address)
    page.tab.wait_for_url(f"{base}/")
    page.context.route(
        "http://other.example/**",
        lambda route: route.fulfill(content_type="text/html", body="<p>other</p>"),
    )
    page.tab.goto("http://other.example/")
    for method in ("GET", "POST", "DELETE"):
        call = (
            f"fetch('{base}/api/studies', {{method: '{method}', credentials: 'include'}}).then(() "
            "=> 'read', () => 'refused')"
        )
        assert page.tab.evaluate(call) == "refused"
    page.tab.set_content(f"<iframe src='{base}/studies/1'></iframe>")
    page.tab.wait_for_timeout(500)
    assert page.tab.frames[-1].url == "chrome-error://chromewebdata/"
    assert len(study.study.get_trials()) == 5
    page.context.close()


def test_the_readme_is_illustrated_by_what_the_dashboard_shows(
    chromium: Any, address: str, tmp_path: Path
):
    script = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    script["photograph"](chromium.new_page(), address, tmp_path)
    widths = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            widths[path.stem] = picture.width
    assert widths["dashboard"] == script["SCREEN"]["width"]
    assert 300 < widths["layout"] < 800
    assert widths["detections"] == 64 + 4 + 64  # ground truth and what was found


@pytest.mark.parametrize("screen", SCREENS)
def test_the_report_opens_from_disk_and_asks_for_nothing(
    chromium: Any, study: Search, tmp_path: Path, screen: str
):
    out = tmp_path / "report.html"
    assert run_here("nas", "report", "--storage", study.spec.storage, "--out", out).code == 0
    page = Page(chromium, screen)
    page.tab.goto(out.as_uri())
    page.drawn(PLOTS)
    page.keep(f"report-{screen}")
    background = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (screen != "dark")
    text = page.tab.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert (text == "rgb(27, 31, 36)") == (screen != "dark")
    assert {url for url in page.requests if not url.startswith(("data:", "blob:"))} == {
        out.as_uri()
    }
    assert page.complaints == []
    page.context.close()
