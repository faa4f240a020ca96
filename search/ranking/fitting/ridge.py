"""Ridge regression in closed form, with some coefficients free of the penalty.

Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems" (1970).
"""

from typing import NamedTuple

import numpy as np

from fedpareto.supernet.arrays import FloatArray


class Ridge(NamedTuple):
    """Fitted coefficients: of the columns without a penalty, (free,), and of those with one, (columns,)."""

    free: FloatArray
    penalised: FloatArray

    def predict(self, free: FloatArray, penalised: FloatArray) -> FloatArray:
        """Return the values of N rows, (N,)."""
        values: FloatArray = free @ self.free + penalised @ self.penalised
        return values


def fit_ridge(free: FloatArray, penalised: FloatArray, values: FloatArray, strength: float) -> Ridge:
    """Return the coefficients of least squared error plus ``strength`` times the squares of the penalised ones.

    Args:
        free: columns without a penalty, (N, free); of dependent ones the shortest solution is taken.
        penalised: columns with one, (N, columns).
        values: values to fit, (N,).
        strength: above 0.
    """
    # What the free columns explain is taken out of all else (Frisch and Waugh, 1933).
    explained = np.linalg.lstsq(free, np.column_stack([values, penalised]), rcond=None)[0].astype(np.float64)
    left = np.column_stack([values, penalised]) - free @ explained
    rest, columns = left[:, 0], left[:, 1:]
    gram = columns.T @ columns + strength * np.eye(columns.shape[1])
    coefficients = np.linalg.solve(gram, columns.T @ rest).astype(np.float64)
    return Ridge(explained[:, 0] - explained[:, 1:] @ coefficients, coefficients)
