"""What every worker process needs, imported once, in the process that workers are forked from."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, also while this imports

from flows.prefect_process import gc_paused  # noqa: E402

with gc_paused():
    import flows.experiment  # noqa: F401
