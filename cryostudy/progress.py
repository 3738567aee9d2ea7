"""What a terminal shows while something runs that has no steps to count."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def busy(text: str, progress: bool | None = None) -> Iterator[None]:
    """Show `text` and the time so far until the block ends; by default (None) only on a terminal."""
    hidden = None if progress is None else not progress
    with tqdm(desc=text, bar_format="{desc} {elapsed}", leave=False, disable=hidden) as line:
        done = threading.Event()

        def tick() -> None:
            while not done.wait(0.5):
                line.refresh()

        thread = threading.Thread(target=tick, daemon=True)
        if not line.disable:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.is_alive():  # a late refresh would leave the line behind
                thread.join()
