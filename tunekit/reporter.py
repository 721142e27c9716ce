"""What keeps the report of a search fresh: a thread beside it that reads the ledger, for which no trial waits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunekit import paths
from tunekit.ledger import Ledger, read_experiment
from tunekit.remote import place_of
from tunekit.report import page_data
from tunekit.report_page import page_of
from tunekit.sealed import figures_of
from tunekit.story import Story

EVERY_S = 30.0
MOST_SHARE = 0.05  # of the time that goes into reports


@contextmanager
def reporting(folder: Path, problems: list[str]) -> Iterator[None]:
    """Write the report of the search in `folder` again and again while the block runs, and once more at its end.

    Args:
        folder: the experiment's, on this machine.
        problems: gets a line, once, where the report could not be written; the search goes on.
    """
    reporter = Reporter(folder, problems)
    reporter.thread.start()
    try:
        yield
    finally:
        reporter.done.set()
        reporter.thread.join()


class Reporter:
    """The thread, and what it has read of the ledger so far."""

    def __init__(self, folder: Path, problems: list[str]) -> None:
        self.folder, self.problems = folder, problems
        self.story: Story | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._follow, name="tunekit-report", daemon=True)

    def _follow(self) -> None:
        wait_s = EVERY_S  # a search that is over sooner has its report then
        while not self.done.wait(wait_s):
            began = time.monotonic()
            self._write(going=True)
            wait_s = max(EVERY_S, (time.monotonic() - began) / MOST_SHARE)
        self._write(going=False)

    def _write(self, going: bool) -> None:
        try:
            described, ledger = read_experiment(self.folder), Ledger(self.folder)
            try:
                self.story = self.story or Story(described["asked"]["metric"], described["asked"]["mode"])
                self.story.hear(ledger.events(after=self.story.heard))
            finally:
                ledger.close()
            write_report(paths.report_html(self.folder), self.folder, described, self.story, going=going)
        except Exception as error:  # a page for people to look at: the search is what matters
            line = f"the report could not be written: {error}"
            if line not in self.problems:
                self.problems.append(line)


def write_report(
    path: Path,
    folder: Path,
    described: dict[str, Any],
    story: Story,
    *,
    going: bool,
    looked: dict[str, Any] | None = None,
) -> None:
    """Write a report, whole or not at all.

    Args:
        path: of the page.
        folder: the experiment's, on this machine.
        described, story, going, looked: as in `report.page_data`.

    Raises:
        StorageError: it cannot be written.
    """
    name = str(place_of(folder)).rstrip("/").rsplit("/", 1)[-1]
    tested = figures_of(folder)
    paths.write_text(path, page_of(page_data(described, story, name=name, going=going, tested=tested, looked=looked)))
