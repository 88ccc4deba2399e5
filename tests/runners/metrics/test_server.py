"""Where pages are served, who finds them, and what happens when they can't be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from recipes.errors import UsageError
from recipes.spec import Metrics
from runners.events import PageRead
from runners.metrics import serving
from runners.metrics.exposed import ExposedRun
from runners.metrics.server import MetricsPage
from runners.metrics.serving import Pages, pages_of, with_pages
from runners.metrics.targets import FOLDER, announced, known
from tests.conftest import Command
from tests.runners.metrics.simulated import Simulated, live

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=underscores;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
def page() -> Iterator[MetricsPage]:
    page = MetricsPage("127.0.0.1", 0)
    yield page
    page.close()


@pytest.mark.parametrize("accept", ["", "text/plain", PROMETHEUS_3, "application/openmetrics-text;version=1.0.0"])
def test_whatever_is_negotiated_names_keep_their_colon(page: MetricsPage, accept: str) -> None:
    run = ExposedRun(live())
    run.heard(PageRead("vllm:num_requests_running 3\n"))
    page.runs.append(run)
    with urlopen(Request(page.url, headers={"Accept": accept}), timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b"\nvllm:num_requests_running{" in answer.read()


def test_other_paths_and_methods_do_nothing(page: MetricsPage) -> None:
    def status(method: str, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", page.port, timeout=10)
        connection.request(method, path)
        return connection.getresponse().status

    assert status("GET", "/") == 200
    assert status("HEAD", "/metrics?x=1") == 200
    assert status("GET", "/../../etc/passwd") == 404
    assert status("POST", "/metrics") == 501


def test_it_is_bound_to_loopback_unless_asked_otherwise() -> None:
    (page,) = pages_of([None], 0)
    assert page.address == "127.0.0.1"
    page.close()
    (page,) = pages_of([Metrics(port=0, address="0.0.0.0")], None)
    assert page.target == f"127.0.0.1:{page.port}", "whoever scrapes on this machine finds it all the same"
    page.close()


def test_recipes_that_name_the_same_port_share_a_page_and_others_have_their_own() -> None:
    any_port, elsewhere = Metrics(port=0), Metrics(port=0, address="0.0.0.0")
    wanted = [any_port, any_port, elsewhere, None]
    pages = pages_of(wanted, None)
    for i, metrics in enumerate(wanted):
        pages.watch(live(f"run-{i}", metrics))
    assert {page.address: len(page.runs) for page in pages} == {"127.0.0.1": 2, "0.0.0.0": 1}
    pages.close()
    pages = pages_of(wanted, 0)
    for i, metrics in enumerate(wanted):
        pages.watch(live(f"run-{i}", metrics))
    assert [len(page.runs) for page in pages] == [4], "the command line's port is for all"
    pages.close()


def test_a_port_that_is_taken_is_said_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MetricsPage] = []

    class Noted(MetricsPage):
        def __init__(self, address: str, port: int) -> None:
            super().__init__(address, port)
            made.append(self)

    monkeypatch.setattr(serving, "MetricsPage", Noted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} can't be served: Address already in use"):
            pages_of([Metrics(port=0), Metrics(port=port)], None)
    (free,) = made
    assert free._server.socket.fileno() == -1, "it is closed"


@pytest.mark.real
def test_a_taken_port_ends_the_command_before_anything_begins(recipe: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = recipe("up", "local-smoke", "--metrics-port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "another program has it" in ended.stderr
    assert recipe.run_folders() == []


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:0 can't be served"):
        MetricsPage("192.0.2.1", 0)


def test_pages_are_announced_while_they_are_served(tmp_path: Path) -> None:
    with announced(tmp_path, ["127.0.0.1:9400", "127.0.0.1:9401"]):
        (path,) = (tmp_path / FOLDER).iterdir()
        (group,) = json.loads(path.read_text())
        assert group["targets"] == ["127.0.0.1:9400", "127.0.0.1:9401"]
        assert list(known(tmp_path)) == [(os.getpid(), target) for target in group["targets"]]
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\nfrom runners.metrics.targets import announced\n"
        "with announced(pathlib.Path(sys.argv[1]), ['127.0.0.1:1']): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    (left,) = (tmp_path / FOLDER).iterdir()
    other = left.with_name("another-machine-1.json")
    other.write_text(left.read_text())
    with announced(tmp_path, []):
        assert not left.exists()
        assert other.exists(), "of another machine's processes nobody here knows anything"


def test_a_home_that_cannot_be_written_keeps_nobody_from_working(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("in the way")
    with announced(tmp_path, ["127.0.0.1:1"]):
        pass


def test_the_end_waits_for_whoever_comes_regularly(tmp_path: Path) -> None:
    said: list[str] = []
    pages = pages_of([], 0)
    (page,) = pages
    last: list[bytes] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            with suppress(OSError), urlopen(page.url, timeout=10) as answer:
                last.append(answer.read())
            over.wait(0.1)

    scraping = threading.Thread(target=scrape)

    def work(watch: object) -> int:
        run = ExposedRun(live())
        page.runs.append(run)
        simulated = Simulated(run)
        simulated.begin()
        _came_every_ten_seconds(page)
        simulated.end()
        return 0

    def say(line: str) -> None:
        said.append(line)
        if "last visit" in line:
            scraping.start()

    assert with_pages(work, pages, tmp_path, say) == 0
    over.set()
    scraping.join()
    assert any(b'recipe_run_outcome{recipe="sim",' in text for text in last), "a last scrape was waited for"
    assert said[0] == f"metrics: {page.url}"
    assert "last visit, at most 1" in said[1]


def _came_every_ten_seconds(page: MetricsPage) -> None:
    now = time.monotonic()
    for ago_s in (20, 10, 0):
        page.scraped(now - ago_s)


def test_nobody_waits_for_a_scrape_that_never_was_or_after_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(MetricsPage, "wait_for_scrape", lambda _, seconds: waited.append(seconds))
    for regularly, code, expected in ((False, 0, 0), (True, 130, 0), (True, 0, 1)):
        pages = Pages([Metrics(port=0)], for_all=True)
        (page,) = pages
        page.runs.append(ExposedRun(live()))
        if regularly:
            _came_every_ten_seconds(page)
        assert with_pages(lambda _, code=code: code, pages, tmp_path, lambda _: None) == code
        assert len(waited) == expected


def test_a_run_that_ended_long_ago_is_forgotten_and_a_going_one_is_not(page: MetricsPage) -> None:
    runs = {name: ExposedRun(live(name)) for name in ("old", "new", "on")}
    page.runs.extend(runs.values())
    for name in ("old", "new"):
        Simulated(runs[name], name).end()
    runs["old"]._state.ended_at = time.time() - 301
    text = page.text().decode()
    assert 'run_id="old"' not in text
    assert 'run_id="new"' in text
    assert 'run_id="on"' in text
