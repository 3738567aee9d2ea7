"""The command line: `cryostudy restore | train | match | methods | simulate | chapter | grid | run | fetch`."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from cryostudy.arguments import parser
from cryostudy.dispatch import COMMANDS
from cryostudy.errors import CryostudyError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C, 143 for SIGTERM."""
    with warnings.catch_warnings(), terminated_as_interrupted():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        warnings.showwarning = lambda message, *_, **__: say(f"note: {message}")
        try:
            arguments = parser().parse_args(argv)
            COMMANDS[arguments.command](arguments)
            sys.stdout.flush()
        except CryostudyError as error:
            say(str(error))
            return 2
        except KeyboardInterrupt as stop:
            say("stopped; the same command goes on from the last checkpoint, where there is one")
            return 143 if isinstance(stop, Terminated) else 130
        except BrokenPipeError:  # the reader of our output has seen enough, as in `cryostudy methods | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            from cryostudy.io.destination import FULL  # with numpy, which `--help` does not wait for

            place = f"{error.filename}: " if error.filename else ""
            reason = f"{error.strerror or error}; check its permissions"
            if error.errno in FULL:
                reason = "disk full; free space"
            elif error.errno == errno.EFBIG:
                reason = "larger than files may be here; raise the limit (ulimit -f)"
            say(f"{place}{reason} or choose another folder")
            return 2
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
                raise
            say("out of memory; crop the volume, or choose a smaller profile or method")
            return 2
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems send before they kill: an end as orderly as that of Ctrl-C."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raise Terminated at SIGTERM within the block, so that training keeps its last step; main thread only."""

    def stop(*_: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    """One line on stderr."""
    print("cryostudy:", " ".join(text.splitlines()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
