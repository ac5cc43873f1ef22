"""Settings of every test, made before torch is imported."""

import os
import signal

from hypothesis import HealthCheck, settings

os.environ.setdefault("DO_NOT_TRACK", "true")  # of Prefect too, which tests import before our own environment is set

# two spinning threads a process are many times slower than one where cores are shared
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell that runs the tests in the background has them ignore Ctrl-C, which some tests send
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# no test depends on how fast the machine is
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
