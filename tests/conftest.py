"""Settings of the whole suite."""

import os

# Small tensors gain nothing from threads, and threads of several processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
