"""The forms that a schedule over depth may take, and the cooling laws, as data.

Every form is y_ℓ = e^s·e^{f_θ(ℓ)} with a free scale e^s and at most two shape parameters θ, so that on the log scale
the scale is an additive constant and `fitting` has only θ to search. The linear and the offset power form are
parametrised by the ratio of their two ends, which keeps every trial curve positive: a + bℓ by itself has no logarithm
once it crosses zero.

Axes: track, parameter, layer.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

EXPONENT_BOUND = 10.0  # |c| of a + b(ℓ+1)^c; at −10 the form is a step after the first layer already
EXPONENT_FLOOR = 1e-6  # |c| below which a and b cancel; the curve is a + b·ln(ℓ+1) to 1e-6 there

Shape = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(track, parameter) shape parameters and L → f (track, layer), its derivative (track, parameter, layer)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of a schedule."""

    name: str
    formula: str
    parameters: int  # as AICc counts them: scale, shape and the noise variance
    shape: Shape
    # Largest range of ln y → blocks of (start, parameter); a search starts from the best point of each block.
    grid: Callable[[float], list[np.ndarray]]
    bounds: np.ndarray  # (2, parameter): least and greatest shape parameter
    # Special cases to start from as well: their name → (their shape parameters, L) → where they lie in this form's.
    contains: Mapping[str, Callable[[np.ndarray, int], np.ndarray]]
    report: Callable[[float, np.ndarray, int], dict[str, float]]  # s, θ, L → the formula's own parameters
    evaluate: Callable[[Mapping[str, float], np.ndarray], np.ndarray]  # those parameters, ℓ → y


def _flat(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(theta), layers)), np.zeros((len(theta), 0, layers))


def _hajek_fixed(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    fixed = -np.log(np.log(np.arange(layers) + 2.0))
    return np.tile(fixed, (len(theta), 1)), np.zeros((len(theta), 0, layers))


def _sloped(regressor: Callable[[np.ndarray], np.ndarray]) -> Shape:
    def shape(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
        x = regressor(np.arange(layers, dtype=float))
        return theta * x, np.tile(x, (len(theta), 1, 1))

    return shape


def _ends(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """f = ln((1−w) + e^q w), w_c(ℓ) = ((ℓ+1)^c − 1)/(L^c − 1) from 0 to 1; θ = (q, c) with q = ln(last/first)."""
    ratio, exponent = theta[:, :1], theta[:, 1:]
    exponent = np.where(np.abs(exponent) < EXPONENT_FLOOR, np.copysign(EXPONENT_FLOOR, exponent), exponent)
    x = np.log(np.arange(layers) + 1.0)
    end = x[-1] if layers > 1 else 1.0
    rises = exponent > 0
    # For c > 0 the powers are taken relative to the last layer: e^{c(x−X)}(1−e^{−cx})/(1−e^{−cX}) cannot overflow.
    size = np.abs(exponent)
    fallen, fallen_end = np.expm1(-size * x), np.expm1(-size * end)
    weight = fallen / fallen_end  # (track, layer)
    np.multiply(weight, np.exp(size * (x - end)), out=weight, where=rises)
    # ln((1−w) + e^q w) as the logarithm of a sum of positive terms, q + ln(w + (1−w)e^{−q}) for a ratio below 1.
    grows = ratio >= 0
    most = np.expm1(np.abs(ratio))
    sum_ = 1 + np.where(grows, weight, 1 - weight) * most
    curve = np.log(sum_) + np.minimum(ratio, 0)
    by_ratio = weight * np.where(grows, most + 1, 1) / sum_
    by_weight = np.where(grows, most, -most) / sum_
    powers = _rate(size * x, fallen, rises) - _rate(size * end, fallen_end, rises)
    return curve, np.stack([by_ratio, by_weight * weight * powers / exponent], 1)


def _rate(s: np.ndarray, fallen: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """v/(1 − e^{−v}) of v = ±s, and its limit 1 at 0; `fallen` is e^{−s} − 1, `rises` whether v is s."""
    rate = s / np.where(s > 0, -fallen, 1) + (s == 0)
    return np.where(rises, rate, rate * (1 + fallen))


def _straight(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    curve, jacobian = _ends(np.hstack([theta, np.ones_like(theta)]), layers)
    return curve, jacobian[:, :1]


def _root(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Half the logarithm of a straight line between squares; θ = ln(last/first)."""
    curve, jacobian = _straight(2 * theta, layers)
    return curve / 2, jacobian


def _hajek_free(theta: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """−ln ln(ℓ + c₂) with c₂ = 1 + e^v, so that the logarithm stays positive."""
    shift = np.exp(theta)
    log = np.log1p(np.arange(layers) + shift)
    return -np.log(log), (-shift / ((1 + np.arange(layers) + shift) * log))[:, None]


def _ratios(spread: float) -> np.ndarray:
    """Ratios ln(last/first) to start from, up to twice the largest range of ln y."""
    return np.geomspace(0.02, 2, 10) * max(spread, 1e-12)


def _both_signs(spread: float) -> list[np.ndarray]:
    return [np.concatenate([-_ratios(spread), _ratios(spread)])[:, None]]


def _quadrants(spread: float) -> list[np.ndarray]:
    """A block for each sign of the ratio and of the exponent: noisy tracks have local minima in several of them."""
    exponents = np.array([0.1, 0.5, 1, 2, 3, 5, 10])
    block = np.stack(np.meshgrid(_ratios(spread), exponents), -1).reshape(-1, 2)
    return [block * signs for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1])]


def _offset_parameters(scale: float, theta: np.ndarray, layers: int) -> dict[str, float]:
    exponent = float(np.copysign(max(abs(theta[1]), EXPONENT_FLOOR), theta[1]))
    b = math.exp(scale) * math.expm1(theta[0]) / math.expm1(exponent * math.log(layers))
    return {"a": math.exp(scale) - b, "b": b, "c": exponent}


def _line_ends(scale: float, theta: np.ndarray) -> tuple[float, float]:
    return math.exp(scale), math.exp(scale + theta[0])


def _linear_parameters(scale: float, theta: np.ndarray, layers: int) -> dict[str, float]:
    first, last = _line_ends(scale, theta)
    return {"a": first, "b": (last - first) / (layers - 1)}


_UNBOUNDED = np.array([[-500.0], [500.0]])  # of a slope or a log ratio: e^500 is still finite
_NO_SHAPE = dict(grid=lambda spread: [np.zeros((1, 0))], bounds=np.zeros((2, 0)), contains={})
_SLOPE = dict(grid=lambda spread: [np.zeros((1, 1))], bounds=_UNBOUNDED, contains={})
_LEVEL = {"constant": lambda theta, layers: np.zeros((len(theta), 1))}

CONSTANT = Form(
    name="constant",
    formula="a",
    parameters=2,
    shape=_flat,
    **_NO_SHAPE,
    report=lambda s, theta, layers: {"a": math.exp(s)},
    evaluate=lambda p, ell: np.full(len(ell), p["a"]),
)
LINEAR = Form(
    name="linear",
    formula="a + bℓ",
    parameters=3,
    shape=_straight,
    grid=_both_signs,
    bounds=_UNBOUNDED,
    contains=_LEVEL,
    report=_linear_parameters,
    evaluate=lambda p, ell: p["a"] + p["b"] * ell,
)
POWER = Form(
    name="power",
    formula="a(ℓ+1)^b",
    parameters=3,
    shape=_sloped(np.log1p),
    **_SLOPE,
    report=lambda s, theta, layers: {"a": math.exp(s), "b": float(theta[0])},
    evaluate=lambda p, ell: p["a"] * (ell + 1) ** p["b"],
)
EXPONENTIAL = Form(
    name="exponential",
    formula="a·e^{bℓ}",
    parameters=3,
    shape=_sloped(lambda ell: ell),
    **_SLOPE,
    report=lambda s, theta, layers: {"a": math.exp(s), "b": float(theta[0])},
    evaluate=lambda p, ell: p["a"] * np.exp(p["b"] * ell),
)
ROOT = Form(
    name="root",
    formula="√(a + bℓ)",
    parameters=3,
    shape=_root,
    grid=_both_signs,
    bounds=_UNBOUNDED / 2,
    contains=_LEVEL,
    report=lambda s, theta, layers: {
        "a": math.exp(2 * s),
        "b": math.exp(2 * s) * math.expm1(2 * theta[0]) / (layers - 1),
    },
    evaluate=lambda p, ell: np.sqrt(p["a"] + p["b"] * ell),
)
"""The length of a sum of unrelated terms of equal length, and of what they are added to."""
OFFSET_POWER = Form(
    name="offset_power",
    formula="a + b(ℓ+1)^c",
    parameters=4,
    shape=_ends,
    grid=_quadrants,
    bounds=np.array([[-500.0, -EXPONENT_BOUND], [500.0, EXPONENT_BOUND]]),
    contains={
        "constant": lambda theta, layers: np.tile([0.0, 1.0], (len(theta), 1)),
        "linear": lambda theta, layers: np.hstack([theta, np.ones_like(theta)]),
        "power": lambda theta, layers: np.hstack([theta * math.log(layers), theta]),
    },
    report=_offset_parameters,
    evaluate=lambda p, ell: p["a"] + p["b"] * (ell + 1) ** p["c"],
)
ONE_PIECE = (CONSTANT, LINEAR, POWER, EXPONENTIAL, OFFSET_POWER)  # a form comes after those it contains

KIRKPATRICK = Form(
    name="kirkpatrick",
    formula="T₀·α^ℓ",
    parameters=3,
    shape=_sloped(lambda ell: ell),
    **_SLOPE,
    report=lambda s, theta, layers: {"T0": math.exp(s), "alpha": math.exp(theta[0])},
    evaluate=lambda p, ell: p["T0"] * p["alpha"] ** ell,
)
LINEAR_COOLING = Form(
    name="linear",
    formula="T₀ − ℓ(T₀−T_f)/(L−1)",
    parameters=3,
    shape=_straight,
    bounds=_UNBOUNDED,
    grid=_both_signs,
    contains=_LEVEL,
    report=lambda s, theta, layers: dict(zip(("T0", "Tf"), _line_ends(s, theta), strict=True)),
    evaluate=lambda p, ell: p["T0"] - ell * (p["T0"] - p["Tf"]) / ell[-1],
)
HAJEK = Form(
    name="hajek",
    formula="c/ln(ℓ+2)",
    parameters=2,
    shape=_hajek_fixed,
    **_NO_SHAPE,
    report=lambda s, theta, layers: {"c": math.exp(s)},
    evaluate=lambda p, ell: p["c"] / np.log(ell + 2),
)
HAJEK_C2 = Form(
    name="hajek_c2",
    formula="c/ln(ℓ+c₂)",
    parameters=3,
    shape=_hajek_free,
    contains={"hajek": lambda theta, layers: np.zeros((len(theta), 1))},
    grid=lambda spread: [np.linspace(-10, 14, 49)[:, None]],
    bounds=np.array([[-20.0], [16.0]]),  # c₂ − 1 = e^v: beyond 1e7 layers of shift the law is flat
    report=lambda s, theta, layers: {"c": math.exp(s), "c2": 1 + math.exp(theta[0])},
    evaluate=lambda p, ell: p["c"] / np.log(ell + p["c2"]),
)
COOLING_LAWS = (CONSTANT, KIRKPATRICK, LINEAR_COOLING, HAJEK, HAJEK_C2)
