"""The command line: one file a command. The only place where all parts meet; nothing imports it.

Help, wrong flags and missing folders answer before torch or Ray is imported: commands import what
they run inside.
"""

from __future__ import annotations

import os
import signal
import sys
from types import TracebackType

INTERRUPTED = 130  # as shells say it
STOPPED = "Stopped. The same command goes on, or begins again."
GOES_ON = "Stopped. The same command goes on where this one stopped."


def _without_traceback(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Ctrl-C while a command is still being imported is no fault; what comes later is heard by
    `nas.cli.runner.run`.
    """
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(STOPPED, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


sys.excepthook = _without_traceback
