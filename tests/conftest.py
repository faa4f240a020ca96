"""Settings of the whole suite."""

import os
import tempfile

# Small tensors gain nothing from threads, and threads of several processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is computed, compiled or decoded once is kept in one folder of the session, for all its processes, and never in
# the user's.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _KEPT = tempfile.TemporaryDirectory(prefix="fedpareto-tests-")
    os.environ["FEDPARETO_CACHE_DIR"] = _KEPT.name
os.environ.pop("FEDPARETO_CACHE_SIZE", None)
