"""Digits data set of scikit-learn, read without importing scikit-learn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Where the package keeps them: a line a picture, its 64 pixels from 0 to 16 and its label.
_FILE = Path("datasets", "data", "digits.csv.gz")


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pictures (1797, 8, 8), from 0 for black to 16 for white, and their labels (1797,)."""
    # The package is found, not imported: its own loader brings scipy and pandas along, a second for one small file.
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        if (Path(folder) / _FILE).is_file():
            table = np.loadtxt(Path(folder) / _FILE, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a version that keeps the file elsewhere

    digits = load_digits()
    return digits.images, digits.target.astype(np.int64)
