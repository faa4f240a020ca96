"""Settings of the whole suite."""

import os
import tempfile

import pytest
from helpers.examples import ALL, drawn
from hypothesis import settings

# Small tensors gain nothing from threads, and threads of several processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is computed, compiled or decoded once is kept in one folder of the session, for all its processes, and never in
# the user's.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _KEPT = tempfile.TemporaryDirectory(prefix="fedpareto-tests-")
    os.environ["FEDPARETO_CACHE_DIR"] = _KEPT.name
os.environ.pop("FEDPARETO_CACHE_SIZE", None)

# The same examples in every run, and no clock.
settings.register_profile("suite", max_examples=drawn(100), deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where properties are tested with all their examples, they are among the slow tests."""
    for item in items:
        if ALL and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.slow)
