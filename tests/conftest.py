"""Settings of every test, made before torch is imported."""

import os

from hypothesis import HealthCheck, settings

# two spinning threads a process are many times slower than one where cores are shared
os.environ.setdefault("OMP_NUM_THREADS", "1")

# no test depends on how fast the machine is
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
