"""Numbers as text: enough digits to read, enough to see on which side of a limit each lies.

Pure text in, text out; the minus is the mathematical one, powers of ten are superscripts, and a
number that was not measured is a dash with its words beside it, never a zero.
"""

import math
import re
from collections.abc import Sequence

MISSING = "–"
DIGITS = 3  # significant digits in prose and on axes
MOST_DIGITS = 15  # what a float64 carries
PLAIN_FROM, PLAIN_TO = 1e-3, 1e5  # outside, powers of ten are easier to read than zeros
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = DIGITS) -> str:
    """A number with this many significant digits; integers below 10⁹ in full, with thousands grouped.

    >>> number(0.098765), number(24), number(-3.0e-12), number(8192), number(None)
    ('0.0988', '24', '−3.00 × 10⁻¹²', '8,192', '–')
    """
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    whole = isinstance(value, int) or (value == int(value) and abs(value) >= 10)
    if whole and abs(value) < 1e9:
        return _sign(f"{int(value):,}")
    if PLAIN_FROM <= abs(value) < PLAIN_TO:
        exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded number: 0.9996 is 1.00
        decimals = max(0, digits - 1 - exponent)
        return _sign(f"{value:,.{decimals}f}")
    return scientific(value, digits)


def scientific(value: float, digits: int = DIGITS) -> str:
    """A finite number as mantissa and power of ten.

    >>> scientific(12345.678, 3)
    '1.23 × 10⁴'
    """
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{_sign(mantissa)} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def stated(threshold: float | None) -> str:
    """A limit as it was stated: all its digits, no zeros after them.

    >>> stated(0.1), stated(3), stated(1e-12), stated(0.3048)
    ('0.1', '3', '1 × 10⁻¹²', '0.3048')
    """
    if threshold is None or not math.isfinite(threshold):
        return MISSING
    for digits in range(1, MOST_DIGITS + 3):
        if float(f"{threshold:.{digits - 1}e}") == threshold:
            return number(threshold, digits)
    raise AssertionError(f"{threshold!r} has more digits than a float64")


def apart(observed: float | None, threshold: float | None, digits: int = DIGITS) -> tuple[str, str]:
    """Both numbers, the observed one with digits added until it differs, so that no failure reads "0.100 of 0.1".

    >>> apart(0.10004, 0.1), apart(0.3, 0.3), apart(None, 0.1)
    (('0.10004', '0.1'), ('0.300', '0.3'), ('–', '0.1'))
    """
    seen = number(observed, digits)
    if observed is not None and threshold is not None and observed != threshold:
        while seen == number(threshold, digits) and digits < MOST_DIGITS + 2:
            digits += 1
            seen = number(observed, digits)
    return seen, stated(threshold)


def column(values: Sequence[float | None]) -> list[str]:
    """One table column with the same decimals throughout, so that right-aligned points line up.

    >>> column([0.5, 12.25, None])
    ['0.50', '12.25', '–']
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    decimals = None if all(isinstance(v, int) for v in values if v is not None) else _common_decimals(finite)
    if decimals is None:
        return [number(v) for v in values]
    return [MISSING if v is None or not math.isfinite(v) else _sign(f"{v:,.{decimals}f}") for v in values]


def _common_decimals(values: Sequence[float]) -> int | None:
    """Decimals that suit every finite number; None where their sizes differ too much for one number of decimals."""
    sizes = [abs(v) for v in values if v]
    if not sizes or min(sizes) < max(max(sizes) * 1e-4, PLAIN_FROM / 10) or max(sizes) >= PLAIN_TO:
        return None
    decimals = min(6, max(0, DIGITS - math.floor(math.log10(max(sizes)))))
    return max(decimals, 2) if max(sizes) >= 1 else decimals


def typeset(text: str) -> str:
    """A program's numbers inside a sentence, as the page writes them.

    >>> typeset("moves by 2.8e-17 at most, from -0.5"), typeset("5% and 5 %")
    ('moves by 2.8 × 10⁻¹⁷ at most, from −0.5', '5\\xa0% and 5\\xa0%')
    """

    def power(match: re.Match[str]) -> str:
        return f"{match[1]} × 10{str(int(match[2])).translate(_SUPERSCRIPT)}"

    minus = re.sub(r"(?<![\w.])-(?=\d)", "−", re.sub(r"(\d)e([+-]\d+)\b", power, text))
    return re.sub(r"(?<=\d) ?%", "\u00a0%", minus)  # a number and its sign stay on one line


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with two digits, or as many as it needs near 100.

    >>> percent(0.1234), percent(0.004), percent(12.5)
    ('12 %', '0.40 %', '1,250 %')
    """
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    value = 100 * fraction
    return f"{number(value, 2) if abs(value) < 10 else _sign(f'{value:,.0f}')} %"


def _sign(text: str) -> str:
    return text.replace("-", "−")
