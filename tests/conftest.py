"""Settings of every test, made before torch is imported."""

import os

# two spinning threads a process are many times slower than one where cores are shared
os.environ.setdefault("OMP_NUM_THREADS", "1")
