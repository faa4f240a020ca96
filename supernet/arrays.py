"""Types of numpy arrays: whole numbers, real numbers, and a column of values of N architectures."""

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: One value for every architecture of a batch, or one value that they share.
Column = IntArray | int
