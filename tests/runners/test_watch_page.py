"""`recipe watch --web`: what its server answers to whom, and the page in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from recipes.errors import UsageError
from runners.ongoing.overview import overview
from runners.watch_page.feed import Feed, running
from runners.watch_page.peer import may_ask, owner_of
from runners.watch_page.server import application, report_of
from tests.browser import Chromium, chromium  # noqa: F401 (a fixture)
from tests.runners.ongoing.states import NOW, RUN, at, ended, found, lease, live, state

Wait = Callable[..., Any]
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


class Site:
    """The page's server over a document that a test sets."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.document: dict[str, Any] | Exception = overview(state(found()))
        self.looked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def look(self) -> dict[str, Any]:
        self.looked += 1
        if isinstance(self.document, Exception):
            raise self.document
        return self.document

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@contextmanager
def served(home: Path, port: int = 0) -> Iterator[Site]:
    site = Site(home, port)
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        feed = Feed(site.look)
        runner = web.AppRunner(application(feed, home), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        site.port = runner.addresses[0][1]
        async with running(feed):
            ready.set()
            await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[main()])
    thread.start()
    try:
        assert ready.wait(30)
        yield site
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive(), "open pages keep it from ending"
        loop.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(tmp_path) as one:
        yield one


def test_it_gives_the_document_and_says_what_a_browser_may_do_with_it(site: Site) -> None:
    status, headers, body = site.ask("/state.json")
    assert (status, json.loads(body)) == (200, site.document)
    assert headers["Content-Type"].startswith("application/json")
    for path in ("/", "/watch.js", "/watch.css", "/base.css", "/page.js", "/state.json", "/nothing"):
        _, headers, _ = site.ask(path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "", "[::2]"]
)
def test_a_name_that_is_not_this_machines_own_is_refused(site: Site, host: str) -> None:
    for path in ("/", "/state.json", "/events"):
        status, _, body = site.ask(path, Host=host)
        assert status == 421
        assert RUN.encode() not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9999", "[::1]:80"])
def test_through_a_tunnel_it_has_another_port(site: Site, host: str) -> None:
    assert site.ask("/state.json", Host=host)[0] == 200


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says whose a connection is")


@needs_proc
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_it_is_known_whose_a_connection_is(family: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()
        mapped = (f"::ffff:{here[0]}", here[1])
        with socket.socket(socket.AF_INET if family == "IPv4" else socket.AF_INET6) as client:
            client.connect(here if family == "IPv4" else mapped)
            peer = ("127.0.0.1", client.getsockname()[1])
            assert owner_of(peer, here) == os.getuid()
            assert may_ask(peer, here, me=os.getuid())
            assert may_ask(peer, here, me=0)
            assert may_ask(peer, here, me=1234) == (os.getuid() == 0), "root may ask, others may not"
        assert not may_ask(("127.0.0.1", 1), here, me=1234), "who has gone has no owner"


@needs_proc
def test_another_users_question_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.watch_page.peer.os.getuid", lambda: 1234)
    monkeypatch.setattr("runners.watch_page.peer.owner_of", lambda *_: 4321)
    for path in ("/", "/state.json", "/events", f"/runs/{RUN}/report.html"):
        status, _, body = site.ask(path)
        assert (status, body) == (403, b"this page is another user's\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_it_can_only_be_read(site: Site, method: str) -> None:
    status, headers, _ = site.ask("/state.json", method)
    assert (status, headers["Allow"]) == (405, "GET")


def test_a_report_is_served_in_an_origin_of_its_own(site: Site) -> None:
    folder = site.home / "runs" / RUN
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>report</h1>")
    status, headers, body = site.ask(f"/runs/{RUN}/report.html")
    assert (status, body) == (200, b"<h1>report</h1>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "allow-same-origin" not in headers["Content-Security-Policy"]
    assert "connect-src" not in headers["Content-Security-Policy"], "default-src 'none' stands"
    assert site.ask(f"/runs/{RUN}/result.json")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../report.html",
        "/runs/%2e%2e/report.html",
        "/runs/..%2f..%2fx-20261121-051200-9f3a/report.html",
        f"/runs/%2e%2e%2fruns%2f{RUN}/report.html",
        "/runs/other-20261121-051200-9f3a/report.html",
        f"/runs/{RUN}%00/report.html",
        f"/runs/{RUN}/../../ledger.db",
    ],
)
def test_nothing_else_of_the_home_is_served(site: Site, path: str) -> None:
    (site.home / "runs" / RUN).mkdir(parents=True)
    (site.home / "runs" / RUN / "report.html").write_text("report")
    (site.home / "report.html").write_text("secret")
    (site.home / "ledger.db").write_text("secret")
    outside = site.home / "outside"
    outside.mkdir()
    (outside / "report.html").write_text("secret")
    (site.home / "runs" / "other-20261121-051200-9f3a").symlink_to(outside)
    status, _, body = site.ask(path)
    assert (status, b"secret" in body) == (404, False)


def test_a_report_that_leads_elsewhere_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / RUN
    folder.mkdir(parents=True)
    (tmp_path / "private").write_text("secret")
    (folder / "report.html").symlink_to(tmp_path / "private")
    assert report_of(tmp_path, RUN) is None
    assert report_of(tmp_path, "..") is None


@pytest.mark.parametrize("error", [UsageError("it is locked"), OSError("it is locked"), ValueError("it is locked")])
def test_what_cannot_be_read_is_told_and_the_page_goes_on(site: Site, error: Exception) -> None:
    with urllib.request.urlopen(site.url + "events", timeout=30) as events:
        documents = (json.loads(line[6:]) for line in events if line.startswith(b"data: "))
        assert "runs" in next(documents)
        site.document = error
        assert "it is locked" in next(document["error"] for document in documents if "error" in document)
        site.document = overview(state(found()))
        assert next(document for document in documents if "runs" in document)["runs"]


def test_it_looks_only_while_somebody_listens(site: Site, wait_until: Wait) -> None:
    assert site.looked == 0
    with urllib.request.urlopen(site.url + "events", timeout=30) as events:
        lines = (line for line in events if line.startswith(b"data: "))
        assert json.loads(next(lines)[6:])["runs"][0]["run_id"] == RUN
        next(lines)
    wait_until(lambda: _settled(site), what="the end of the looking")


def _settled(site: Site) -> bool:
    before = site.looked
    threading.Event().wait(1.3)
    return site.looked == before


# ---- in a real browser -----------------------------------------------------------------------------------------


class Tab:
    """A page that is open, and everything that went wrong in it."""

    def __init__(self, context: Any, url: str, *, wait: bool = True) -> None:
        self.page = context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(
            "window.violations = []; addEventListener('securitypolicyviolation', e => violations.push(e.blockedURI))"
        )
        self.page.goto(url)
        if wait:
            self.page.wait_for_selector("[data-key=totals]")

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).all_inner_texts())

    def shows(self, selector: str, words: str) -> None:
        """Waits until it does, without any reload."""
        self.page.locator(selector, has_text=words).first.wait_for(timeout=60_000)

    def is_clean(self) -> None:
        assert self.problems == []
        assert self.page.evaluate("window.violations") == []


@pytest.fixture
def context(chromium: Chromium) -> Iterator[Any]:  # noqa: F811
    made = chromium._browser.new_context(viewport={"width": 1200, "height": 900})
    made.set_default_timeout(60_000)
    yield made
    made.close()


@pytest.mark.real
def test_the_page_shows_a_run_and_follows_it_without_a_reload(site: Site, context: Any) -> None:
    tab = Tab(context, site.url)
    tab.shows("article h2", RUN)
    shown = tab.text("article")
    for words in ("about 23 min", "$0.81", "412 of 1,104 requests", "3 of 12 documents", "2,911 tok/s", "peak 3,221"):
        assert words in shown, words
    assert "14 running · 0 waiting · KV 93 %" in shown
    assert "72.0 of 80.0 GiB" in tab.text(".gpus")
    assert tab.page.locator(".curve polyline").count() == 2
    assert tab.page.title() == "1 run · recipe watch"
    tab.page.evaluate("window.same = true")
    driven = {**live()["driven"], "done": 1000, "documents_done": 11}
    site.document = overview(state(found(live=live(driven=driven, warnings=["the disk is nearly full"]))))
    tab.shows(".advance", "1,000 of 1,104 requests")
    tab.shows(".notice", "the disk is nearly full")
    site.document = overview(state(ended=[ended(run_id=RUN, ended_at=NOW, report="/x/report.html")]))
    tab.shows(".ended", RUN)
    assert tab.page.locator("article").count() == 0
    assert "Nothing is going on" in tab.text("[data-key=nothing]")
    assert tab.page.locator(".ended a").get_attribute("href") == f"runs/{RUN}/report.html"
    assert tab.page.evaluate("window.same"), "it was never loaded again"
    assert all(request.startswith(site.url) for request in tab.requests), "nothing is asked of anybody else"
    tab.is_clean()


@pytest.mark.real
def test_the_curves_have_the_shape_of_the_figures(site: Site, context: Any) -> None:
    tab = Tab(context, site.url)
    points = tab.page.locator(".curve.prompt polyline").get_attribute("points").split()
    heights = [39 - float(point.split(",")[1]) for point in points]
    rates = live()["rates"]["prompt_tokens_per_s"]
    assert [height / 38 for height in heights] == pytest.approx([rate / max(rates) for rate in rates], abs=0.01)
    bar = tab.page.locator("[data-key=drive] .bar rect").get_attribute("width")
    assert float(bar.rstrip("%")) == pytest.approx(100 * 412 / 1104, abs=0.1)


@pytest.mark.real
def test_whatever_a_run_says_is_text(site: Site, context: Any) -> None:
    phases = [{"name": HOSTILE, "seconds": 1.0, "usd": None, "ok": True, "note": HOSTILE}]
    samples = live()["samples"]
    samples["machine"]["gpus"][0]["name"] = HOSTILE
    hostile = live(
        recipe=HOSTILE,
        model=HOSTILE,
        tags=[HOSTILE],
        warnings=[HOSTILE, "javascript:alert(1)"],
        phases=phases,
        samples=samples,
        phase={"name": HOSTILE, "started_at": at(3), "doing": HOSTILE},
    )
    gone = found(run_id=HOSTILE, lives=False, machine=lease(run_id=HOSTILE), live=hostile)
    site.document = overview(
        state(found(live=hostile), gone, alone=[lease(run_id=HOSTILE)], ended=[ended(run_id=HOSTILE, report="x")])
    )
    tab = Tab(context, site.url)
    tab.shows("article", HOSTILE)
    assert tab.page.locator("main img, main script").count() == 0
    assert tab.page.evaluate("window.hacked") is None
    assert all(
        href.startswith("runs/%3C")
        for href in tab.page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    )
    tab.is_clean()


@pytest.mark.real
def test_a_lost_client_and_a_machine_alone_stand_out_with_their_commands(site: Site, context: Any) -> None:
    site.document = overview(state(found(lives=False, machine=lease()), alone=[lease(run_id="b-20261121-000000-aaaa")]))
    tab = Tab(context, site.url)
    assert "Its client is gone" in tab.text("article .notice.bad")
    assert f"recipe attach {RUN}" in tab.text("article code")
    assert "nobody minds it" in tab.text("main > div > .notice.bad")
    tab.is_clean()


@pytest.mark.real
def test_a_lost_connection_is_told_and_comes_back_by_itself(tmp_path: Path, context: Any) -> None:
    with socket.socket() as held:  # so that nobody else gets the port between the two servers
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with served(tmp_path, port) as first:
            tab = Tab(context, first.url)
            tab.shows("article h2", RUN)
        tab.shows("#connection", "The connection is lost")
        tab.shows("article h2", RUN)  # what was known is still there
        with served(tmp_path, port) as second:
            second.document = overview(state(found(run_id="later-20261121-051200-9f3a")))
            tab.shows("article h2", "later-20261121-051200-9f3a")
            assert tab.page.locator("#connection").is_hidden()


@pytest.mark.real
def test_more_tabs_than_a_browser_has_connections_for_all_live(site: Site, context: Any) -> None:
    tabs = [Tab(context, site.url) for _ in range(9)]
    site.document = overview(state(found(live=live(warnings=["news for all"]))))
    for tab in tabs:
        tab.shows(".notice", "news for all")
    tabs[0].page.close()  # the one that listened for the others
    site.document = overview(state(found(live=live(warnings=["and more"]))))
    for tab in tabs[1:]:
        tab.shows(".notice", "and more")
        tab.is_clean()


@pytest.mark.real
@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_it_is_readable_at_any_width_and_in_the_dark(site: Site, chromium: Chromium, width: int) -> None:  # noqa: F811
    site.document = overview(
        state(found(), found(run_id="a" * 60 + RUN, live=live(warnings=["w" * 300])), ended=[ended()])
    )
    context = chromium._browser.new_context(viewport={"width": width, "height": 800}, color_scheme="dark")
    tab = Tab(context, site.url)
    tab.shows("article h2", RUN)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    colours = tab.page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert colours == ["rgb(20, 23, 27)", "rgb(230, 233, 237)"]
    tab.is_clean()
    context.close()


@pytest.mark.real
def test_what_somebody_reads_or_has_chosen_stays_while_it_updates(site: Site, context: Any) -> None:
    tab = Tab(context, site.url)
    tab.shows("article h2", RUN)
    tab.page.evaluate("getSelection().selectAllChildren(document.querySelector('article h2'))")
    tab.page.locator(".gpus").focus()
    site.document = overview(
        state(found(run_id="new-20261121-051200-9f3a"), found(live=live(warnings=["something new"])))
    )
    tab.shows(".notice", "something new")
    assert tab.page.evaluate("getSelection().toString()").strip() == RUN
    assert tab.page.evaluate("document.activeElement.classList.contains('gpus')")
    names = tab.page.evaluate("[...document.querySelectorAll('[role=img]')].every(e => e.getAttribute('aria-label'))")
    assert names, "a picture says in words what it shows"
    assert tab.page.evaluate("[...document.querySelectorAll('th')].every((e) => e.textContent.trim())")
