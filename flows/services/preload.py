"""Everything that worker processes need, imported once, in the process that workers are forked from.

`flows.services.preloaded` comes last: until then this process ends as soon as its parent does.
"""

import os
import signal

from tasks.store.stopping import STOPPING_SIGNALS, ignore_signals

ignore_signals(*STOPPING_SIGNALS)  # they are for the command's process, also during these imports
if hasattr(os, "register_at_fork"):  # a worker is asked to stop by SIGTERM
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))

from flows.services.child import ParentWatch  # noqa: E402
from flows.services.environment import imports_begin  # noqa: E402

# this process keeps the command's output open, so it must end with it; after the imports multiprocessing does that
parent_watch = ParentWatch()
imports_begin()
import flows.experiment  # noqa: F401, E402
from tasks.store.code import code_digest  # noqa: E402

code_digest()  # read now: files may be edited before the first worker starts
