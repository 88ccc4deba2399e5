"""The pages of one command: which of its recipes want one, where, and until when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import ExitCode
from recipes.spec import Metrics
from runners.events import Event, Listener
from runners.metrics.exposed import ExposedRun
from runners.metrics.server import MetricsPage
from runners.metrics.targets import announced

if TYPE_CHECKING:
    from runners.live import LiveRun

Watcher = Callable[["LiveRun"], Listener]


class Pages:
    """One for each address and port; recipes that name the same share it."""

    def __init__(self, wanted: Iterable[Metrics], *, for_all: bool = False) -> None:
        """`for_all`: every run is on the first, whatever its recipe says. Raises UsageError if a port is taken."""
        self._for_all = for_all
        self._pages: dict[Metrics, MetricsPage] = {}
        try:
            for one in wanted:
                if one not in self._pages:
                    self._pages[one] = MetricsPage(one.address, one.port)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[MetricsPage]:
        return iter(self._pages.values())

    def watch(self, live: LiveRun) -> Listener:
        """What hears a run, so that it is on its page; with one that has none, nothing."""
        wanted = live.plan.recipe.metrics
        page = next(iter(self), None) if self._for_all else self._pages.get(wanted) if wanted else None
        if page is None:
            return _unheard
        run = ExposedRun(live)
        page.runs.append(run)
        return run.heard

    def close(self) -> None:
        for page in self:
            page.close()


def with_pages(work: Callable[[Watcher], int], pages: Pages, home: Path, say: Callable[[str], None]) -> int:
    """Do the work with its pages served; returns its exit code.

    At the end the last figures stay until whoever came regularly has had them; nobody who interrupted waits for that.
    """
    with ExitStack() as stack:
        stack.callback(pages.close)
        stack.enter_context(announced(home, [page.target for page in pages]))
        for page in pages:
            say(f"metrics: {page.url}")
        code = work(pages.watch)
        with suppress(KeyboardInterrupt):
            for page in pages if code != ExitCode.INTERRUPTED else ():
                _until_scraped(page, say)
    return code


def pages_of(metrics: Iterable[Metrics | None], port: int | None) -> Pages:
    """Those that recipes ask for; with a port from the command line, one for all. Raises UsageError if one is taken."""
    asked_for = [one for one in metrics if one is not None]
    if port is None:
        return Pages(asked_for)
    address = asked_for[0].address if asked_for else Metrics(port=port).address
    return Pages([Metrics(port=port, address=address)], for_all=True)


def _until_scraped(page: MetricsPage, say: Callable[[str], None]) -> None:
    seconds = page.wait_s if page.runs else 0.0
    if seconds > 0:
        say(f"metrics: for Prometheus' last visit, at most {seconds:.0f} s; Ctrl-C does not wait")
        page.wait_for_scrape(seconds)


def _unheard(_: Event) -> None:
    """Nobody asked for this run."""
