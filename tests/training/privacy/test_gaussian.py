"""The stream of the noise: known answers, and its distribution far into the tails."""

import math
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from helpers.networks.strategies import runs
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from fedpareto.supernet.arrays import FloatArray
from fedpareto.training.privacy import gaussian
from fedpareto.training.privacy.gaussian import PIECE, gaussian_pieces, keystream, normals

_KEY = bytes(range(32))

#: The first values of that key, when a stream of 8 is drawn.
_FROZEN = [
    -0.5032375378037085,
    -1.7765119417756239,
    0.7868275676568647,
    1.1633602097681641,
    -0.6799236971826363,
    1.2237850578292284,
    -1.0471542994098249,
    0.18251018216951032,
]


def _drawn(count: int, key: bytes = _KEY) -> FloatArray:
    return np.concatenate(list(gaussian_pieces(key, count)))


def _quarter_round(state: list[int], *at: int) -> None:
    """RFC 8439, section 2.1."""
    a, b, c, d = (state[place] for place in at)
    for shift in ((16, 12), (8, 7)):
        a = (a + b) & 0xFFFFFFFF
        d = _rotated(d ^ a, shift[0])
        c = (c + d) & 0xFFFFFFFF
        b = _rotated(b ^ c, shift[1])
    for place, value in zip(at, (a, b, c, d), strict=True):
        state[place] = value


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & 0xFFFFFFFF


def _block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439, section 2.3: the block function, written down once more."""
    first = [int.from_bytes(b"expand 32-byte k"[at : at + 4], "little") for at in range(0, 16, 4)]
    rest = key + counter.to_bytes(4, "little") + nonce
    start = first + [int.from_bytes(rest[at : at + 4], "little") for at in range(0, 48, 4)]
    state = list(start)
    for _ in range(10):
        for at in range(4):
            _quarter_round(state, at, at + 4, at + 8, at + 12)
        for at in range(4):
            _quarter_round(state, at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
    return b"".join(((a + b) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in zip(state, start, strict=True))


def test_the_keystream_is_chacha20_from_its_first_block_on() -> None:
    # RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce 0, blocks 0 and 1.
    (words,) = keystream(bytes(32), [16])
    assert words.tobytes().hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    assert (
        _block(_KEY, 1, bytes.fromhex("000000090000004a00000000")).hex().startswith("10f1e7e4d13b5915500fdd1fa32071c4")
    )
    (words,) = keystream(_KEY, [24])
    assert words.tobytes() == b"".join(_block(_KEY, counter, bytes(12)) for counter in range(3))
    # A package that reads its nonce in another order would be told by this.
    whole = Cipher(algorithms.ChaCha20(_KEY, (2).to_bytes(4, "little") + bytes(12)), mode=None).encryptor()
    assert words.tobytes()[128:] == whole.update(bytes(64))


def test_values_of_a_fixed_key_are_what_they_were() -> None:
    # numpy's sine and cosine may differ in their last bits between processors.
    assert _drawn(8) == pytest.approx(_FROZEN, rel=1e-12)
    assert _drawn(9)[:8] != pytest.approx(_FROZEN, rel=1e-3)


def test_a_piece_is_box_and_mullers_transform_of_the_keystream_summed_by_four() -> None:
    (words,) = keystream(_KEY, [24])
    values = []
    for row in words.reshape(4, 6).tolist():
        radii = [math.sqrt(-2 * math.log((word + 1) / 2**64)) for word in row[:3]]
        angles = [2 * math.pi * word / 2**64 for word in row[3:]]
        pairs = list(zip(radii, angles, strict=True))
        values.append([r * math.cos(a) for r, a in pairs] + [r * math.sin(a) for r, a in pairs])
    expected = [sum(column) / 2 for column in zip(*values, strict=True)]
    assert _drawn(6) == pytest.approx(expected, rel=1e-9)
    assert _drawn(5) == pytest.approx(expected[:5], rel=1e-9)


@pytest.mark.parametrize("count", [0, 1, 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 3])
def test_there_are_as_many_values_as_asked_for_in_pieces_of_bounded_size(count: int) -> None:
    pieces = list(gaussian_pieces(_KEY, count))
    assert sum(len(piece) for piece in pieces) == count
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    # No piece is another one again.
    assert len({piece[0] for piece in pieces}) == len(pieces)


def test_the_extremes_of_the_words_give_finite_values_far_beyond_what_single_precision_reaches() -> None:
    most = 2**64 - 1
    words = np.array([[0, 0, most, 2**40, 0, 2**63, 0, 2**62]], dtype=np.uint64)
    values = normals(words)[0]
    assert np.isfinite(values).all()
    assert values[0] == pytest.approx(math.sqrt(128 * math.log(2)))
    assert values[1] == pytest.approx(-math.sqrt(128 * math.log(2)))
    assert values[2] == 0.0
    assert values[7] == pytest.approx(math.sqrt(48 * math.log(2)))
    assert abs(values[:2]).min() > 9


@runs(200)
@given(words=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2))
def test_no_words_give_a_value_that_is_not_finite_or_out_of_reach(words: list[int]) -> None:
    values = normals(np.array([words], dtype=np.uint64))
    assert np.isfinite(values).all()
    assert abs(values).max() <= math.sqrt(128 * math.log(2)) + 1e-12


def _check_distribution(values: FloatArray, farthest: int) -> None:
    """Hold values against a standard normal distribution; each bound is passed by chance once in 10⁵ times or less."""
    many = len(values)
    # Variances of the sample moments 1 to 6: E x^2k − (E x^k)².
    moments = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96), 5: (0, 945), 6: (15, 10170)}
    for order, (mean, variance) in moments.items():
        assert abs(np.mean(values**order) - mean) < 5 * math.sqrt(variance / many), order
    assert kstest(values, "norm").pvalue > 1e-5
    for sigmas in range(1, farthest + 1):
        for tail in (values > sigmas, values < -sigmas):
            expected = many * float(norm.sf(sigmas))
            assert abs(np.count_nonzero(tail) - expected) < 5 * math.sqrt(expected) + 1, sigmas
    # Neighbours, values of a pair, and values a row apart.
    for lag in (1, 2, PIECE // 2, PIECE):
        if lag < many:
            assert abs(np.mean(values[lag:] * values[:-lag])) < 5 / math.sqrt(many - lag), lag


def test_the_values_are_normal() -> None:
    _check_distribution(_drawn(600_000), 4)


@pytest.mark.slow
def test_the_values_are_normal_far_into_the_tails() -> None:
    values = _drawn(40_000_000)
    _check_distribution(values[:10_000_000], 5)
    # 11.5 of 40 million on each side are expected beyond 5 standard deviations, 0.04 beyond 6.
    expected = len(values) * float(norm.sf(5.0))
    for tail in (values > 5, values < -5):
        assert abs(np.count_nonzero(tail) - expected) < 5 * math.sqrt(expected) + 1
    beyond = np.sort(np.abs(values[np.abs(values) > 4.5]))
    assert kstest(norm.sf(beyond) / norm.sf(4.5), "uniform").pvalue > 1e-5


def test_no_two_of_many_values_are_alike() -> None:
    values = _drawn(200_000)
    assert len(np.unique(values)) == len(values)


@pytest.mark.slow
def test_ten_million_values_take_seconds_and_a_bounded_memory() -> None:
    assert gaussian.PIECE <= 2**18
    started = time.process_time()
    for piece in gaussian_pieces(_KEY, 10_000_000):
        assert piece.nbytes <= 8 * PIECE
    assert time.process_time() - started < 8
