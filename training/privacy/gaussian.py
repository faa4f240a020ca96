"""Gaussian noise from a cryptographic stream: ChaCha20 of a 256-bit key, turned into normal values in float64.

**From words to values.** Box and Muller's transform (1958) of two uniform 64-bit words a, b: with u = (a + 1)/2⁶⁴ in
(0, 1] and the angle 2π·b/2⁶⁴, √(−2·ln u)·(cos, sin) are two independent normal values. u has all 64 bits near 0, so the
tails reach √(128·ln 2) = 9.4 standard deviations and are not cut where a float's bits end.

**Low bits.** A float holds few of the values that a real Gaussian has, and which of them a single transform can give
shows in its last bits: from a sum with one such value the sum can be told (Mironov 2012; Jin et al. 2022). So each
value is the sum of four independent ones, halved: it is again normal, and too many pasts lead to each result to list
them (Holohan and Braghin 2021, "Secure random sampling in differential privacy", as in Opacus' secure mode). It reaches
18.8 standard deviations.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from fedpareto.supernet.arrays import FloatArray

#: Values that are made at once, which bounds the memory; where a piece ends is part of the stream's definition.
PIECE = 2**18

#: Values that are added up to one, and the root of their number, by which the sum is divided.
_SUMMED, _ROOT = 4, 2.0


def gaussian_pieces(key: bytes, count: int) -> Iterator[FloatArray]:
    """Yield ``count`` standard normal values that depend on the key alone, at most ``PIECE`` at a time.

    Args:
        key: 32 bytes that are used for nothing else: the stream always begins with counter and nonce 0.
        count: number of values, below 2³³, where the keystream ends.
    """
    # Values come in pairs.
    sizes = [min(PIECE, count - start) for start in range(0, count, PIECE)]
    for size, words in zip(sizes, keystream(key, [_SUMMED * (size + size % 2) for size in sizes]), strict=True):
        yield (normals(words.reshape(_SUMMED, -1)).sum(axis=0) / _ROOT)[:size]


def keystream(key: bytes, counts: Iterable[int]) -> Iterator[NDArray[np.uint64]]:
    """Yield ``counts`` 64-bit words (little-endian) of ChaCha20's keystream, RFC 8439, with counter and nonce 0."""
    # Only private runs have the package, whose presence is asked for before they begin.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms  # noqa: PLC0415

    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    for count in counts:
        # Zeros encrypted are the keystream.
        yield np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")


def normals(words: NDArray[np.uint64]) -> FloatArray:
    """Standard normal values of uniform words, row by row: the first half of a row gives radii, the second angles.

    Args:
        words: of shape (rows, 2·pairs).
    """
    pairs = words.shape[1] // 2
    radius = words[:, :pairs].astype(np.float64)
    radius += 1.0
    radius *= 2.0**-64
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle = words[:, pairs:] * (2 * np.pi * 2.0**-64)
    values = np.empty(words.shape)
    np.multiply(np.cos(angle), radius, out=values[:, :pairs])
    np.multiply(np.sin(angle), radius, out=values[:, pairs:])
    return values
