"""Settings of every test, made before torch is imported."""

import os
import signal

import pytest
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


@pytest.fixture(autouse=True)
def mlflow_address():
    """Restore the address that `mlflow.set_tracking_uri` leaves in the environment: it would be that of later tests."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before
