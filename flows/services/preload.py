"""What every worker process needs, imported once, in the process that workers are forked from.

`flows.services.preloaded` comes last: until then this process ends at once if its parent does.
"""

import os
import signal
import threading

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, also while this imports

from flows.services.environment import imports_begin  # noqa: E402

SECONDS = 0.1  # between two looks at the parent
_imported, _parent = threading.Event(), os.getppid()


def _end_with_parent() -> None:
    """End at once if the parent has, whose output stays open as long; multiprocessing sees to it after the imports."""
    while not _imported.wait(SECONDS):
        if os.getppid() != _parent:
            os._exit(0)


def stop_watching() -> None:
    """Leave the process with one thread, as one must be that is to be forked."""
    _imported.set()
    _watch.join()


_watch = threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True)
_watch.start()
imports_begin()
import flows.experiment  # noqa: F401, E402
from tasks.store.code import code_digest  # noqa: E402

code_digest()  # of the code that is imported here, whatever is edited before the first worker asks
