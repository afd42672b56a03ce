"""Statistical Reference Datasets of the National Institute of Standards and Technology: certified least squares.

Of the sets whose model is a constant plus a curve, as a schedule's is on the log scale. Data and certified values are
in the public domain: https://www.itl.nist.gov/div898/strd/, checked to eleven digits in 128-bit arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """y = b₁ + f(x; b₂ …) + e, with NIST's two starting points and the certified answer."""

    name: str
    y: np.ndarray  # the response, as the model takes it
    curve: Callable[[np.ndarray], np.ndarray]  # (start, parameter) → (start, observation), without b₁
    jacobian: Callable[[np.ndarray], np.ndarray]  # … → (start, parameter, observation)
    starts: tuple[tuple[float, ...], ...]  # without b₁
    certified: tuple[float, ...]  # b₁ and the others
    rss: float


def _columns(theta: np.ndarray) -> list[np.ndarray]:
    return [theta[:, i : i + 1] for i in range(theta.shape[1])]


_NELSON_Y = np.array(
    """15 17 15.5 16.5 15.5 15 16 14.5 15 14.5 12.5 11 14 13 14 11.5 14 16 13 13.5 13 13.5 12.5 12.5 12.5 12 11.5 12 13
    11.5 13 12.5 13.5 17.5 17.5 13.5 12.5 12.5 15 13 12 13 12 13.5 10 11.5 11 9.5 15 15 15.5 16 13 10.5 13.5 14 12.5 12
    11.5 11.5 6.5 5.5 6 6 18.5 17 15.3 16 13 14 12.5 11 12 12 11.5 12 6 6 5 5.5 12.5 13 16 12 11 9.5 11 11 11 10 10.5
    10.5 2.7 2.7 2.5 2.4 13 13.5 16.5 13.6 11.5 10.5 13.5 12 7 6.9 8.8 7.9 1.2 1.5 1 1.5 13 12.5 16.5 16 11 11.5 10.5
    10 7.27 7.5 6.7 7.6 1.5 1 1.2 1.2""".split(),
    dtype=float,
)
_WEEKS = np.repeat([1.0, 2, 4, 8, 16, 32, 48, 64], 16)
_DEGREES = np.tile(np.repeat([180.0, 225, 250, 275], 4), 8)


def _nelson(theta: np.ndarray) -> np.ndarray:
    b2, b3 = _columns(theta)
    return -b2 * _WEEKS * np.exp(-b3 * _DEGREES)


def _nelson_jacobian(theta: np.ndarray) -> np.ndarray:
    b2, b3 = _columns(theta)
    rate = _WEEKS * np.exp(-b3 * _DEGREES)
    return np.stack([-rate, b2 * _DEGREES * rate], 1)


NELSON = Dataset(
    name="Nelson",  # breakdown voltage of insulation: log y = b₁ − b₂·weeks·e^{−b₃·degrees}
    y=np.log(_NELSON_Y),
    curve=_nelson,
    jacobian=_nelson_jacobian,
    starts=((0.0001, -0.01), (0.000000005, -0.05)),
    certified=(2.5906836021e00, 5.6177717026e-09, -5.7701013174e-02),
    rss=3.7976833176e00,
)

_ROSZMAN = np.array(
    """.252429 -4868.68 .252141 -4868.09 .251809 -4867.41 .297989 -3375.19 .296257 -3373.14 .295319 -3372.03 .339603
    -2473.74 .337731 -2472.35 .333820 -2469.45 .389510 -1894.65 .386998 -1893.40 .438864 -1497.24 .434887 -1495.85
    .427893 -1493.41 .471568 -1208.68 .461699 -1206.18 .461144 -1206.04 .513532 -997.92 .506641 -996.61 .505062 -996.31
    .535648 -834.94 .533726 -834.66 .568064 -710.03 .612886 -530.16 .624169 -464.17""".split(),
    dtype=float,
).reshape(-1, 2)
_ENERGY = _ROSZMAN[:, 1]


def _roszman(theta: np.ndarray) -> np.ndarray:
    b2, b3, b4 = _columns(theta)
    return -b2 * _ENERGY - np.arctan(b3 / (_ENERGY - b4)) / np.pi


def _roszman_jacobian(theta: np.ndarray) -> np.ndarray:
    _, b3, b4 = _columns(theta)
    away = _ENERGY - b4
    size = np.pi * (np.square(away) + np.square(b3))
    return np.stack([np.tile(-_ENERGY, (len(theta), 1)), -away / size, -b3 / size], 1)


ROSZMAN = Dataset(
    name="Roszman1",  # quantum defects in sulphur
    y=_ROSZMAN[:, 0],
    curve=_roszman,
    jacobian=_roszman_jacobian,
    starts=((-0.00001, 1000, -100), (-0.000005, 1200, -150)),
    certified=(2.0196866396e-01, -6.1953516256e-06, 1.2044556708e03, -1.8134269537e02),
    rss=4.9484847331e-04,
)

_TIME = np.arange(0.0, 330, 10)


def _mgh17(theta: np.ndarray) -> np.ndarray:
    b2, b3, b4, b5 = _columns(theta)
    return b2 * np.exp(-_TIME * b4) + b3 * np.exp(-_TIME * b5)


def _mgh17_jacobian(theta: np.ndarray) -> np.ndarray:
    b2, b3, b4, b5 = _columns(theta)
    one, other = np.exp(-_TIME * b4), np.exp(-_TIME * b5)
    return np.stack([one, other, -b2 * _TIME * one, -b3 * _TIME * other], 1)


MGH17 = Dataset(
    name="MGH17",  # two exponentials and a constant; NIST's second start, the first being made to defeat every search
    y=np.array(
        """.844 .908 .932 .936 .925 .908 .881 .850 .818 .784 .751 .718 .685 .658 .628 .603 .580 .558 .538 .522 .506 .490
        .478 .467 .457 .448 .438 .431 .424 .420 .414 .411 .406""".split(),
        dtype=float,
    ),
    curve=_mgh17,
    jacobian=_mgh17_jacobian,
    starts=((1.5, -1, 0.01, 0.02),),
    certified=(3.7541005211e-01, 1.9358469127e00, -1.4646871366e00, 1.2867534640e-02, 2.2122699662e-02),
    rss=5.4648946975e-05,
)

DATASETS = (NELSON, ROSZMAN, MGH17)
