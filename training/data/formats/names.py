"""Names of classes and clients as data spell them: numbered in order, and told apart."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from fedpareto.supernet.arrays import IntArray
from fedpareto.training.data.images import DataError

#: A name of a class or a client, as text or as a number.
Name = str | int


def numbered(values: Sequence[Name], kind: str, where: str) -> tuple[tuple[str, ...], IntArray]:
    """Distinct names, sorted (numbers by their value), and the number of every value's name, (N,).

    Raises:
        DataError: two names differ in the case of letters or in their Unicode form alone. Names of one letter may
            differ in its case, as letters do that are classes.
    """
    distinct = sorted(set(values), key=_in_order)
    seen: dict[str, Name] = {}
    for value in distinct:
        other = seen.setdefault(_folded(str(value)), value)
        if other is not value:
            raise DataError(
                f"{where} names two {kind} that look equal, {str(other)!a} and {str(value)!a}; spell them alike, or "
                "rename one"
            )
    places = {value: number for number, value in enumerate(distinct)}
    names = tuple(unicodedata.normalize("NFC", str(value)) for value in distinct)
    return names, np.array([places[value] for value in values], dtype=np.int64)


def _in_order(value: Name) -> tuple[int, int, str]:
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    return (number < 0, number, text)


def _folded(text: str) -> str:
    composed = unicodedata.normalize("NFKC", text)
    return composed if len(composed) == 1 else unicodedata.normalize("NFKC", composed.casefold()).strip()
