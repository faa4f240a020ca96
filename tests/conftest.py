"""Settings of the whole suite."""

import os
import tempfile

# Small tensors gain nothing from threads, and threads of several processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is computed or decoded once is kept in one folder of the session, for its processes too, and never in the user's.
_KEPT = tempfile.TemporaryDirectory(prefix="fedpareto-tests-")
os.environ["FEDPARETO_CACHE_DIR"] = _KEPT.name
os.environ.pop("FEDPARETO_CACHE_SIZE", None)
