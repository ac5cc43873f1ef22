"""What every worker process needs, imported once, in the process that workers are forked from."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, also while this imports

from flows.environment import imports_begin, imports_done  # noqa: E402

imports_begin()
import flows.experiment  # noqa: F401, E402

imports_done()
