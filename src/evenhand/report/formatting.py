"""Numbers as people read them: few digits, units, a real minus sign, and a dash for what is not there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

from markupsafe import Markup, escape

from evenhand.display import spelled_out

MISSING = "–"
MINUS = "\N{MINUS SIGN}"
_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite int or float (a bool is not a number here)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: Any, digits: int = 2) -> str:
    """A number with `digits` decimals.

    >>> fixed(-0.1251), fixed(-0.0004), fixed(None)
    ('−0.13', '0.00', '–')
    """
    if not is_number(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def signed(value: Any, digits: int = 2) -> str:
    """A number with its sign.

    >>> signed(0.406), signed(-1.2), signed(0.0)
    ('+0.41', '−1.20', '0.00')
    """
    text = fixed(value, digits)
    return "+" + text if is_number(value) and text[0].isdigit() and float(text) > 0 else text


def percent(share: Any, digits: int = 1) -> str:
    """A share in [0, 1] as per cent.

    >>> percent(0.6666), percent(1, 0)
    ('66.7%', '100%')
    """
    return fixed(100 * share, digits) + "%" if is_number(share) else MISSING


def interval(pair: Any, digits: int = 1) -> str:
    """An interval of shares as per cent.

    >>> interval([0.512, 0.689]), interval(None)
    ('51.2 to 68.9%', '–')
    """
    return f"{fixed(100 * pair[0], digits)} to {fixed(100 * pair[1], digits)}%" if is_pair(pair) else MISSING


def between(pair: Any, digits: int = 2) -> str:
    """An interval of anything but shares.

    >>> between((-0.5, 0.25)), between(None)
    ('−0.50 to 0.25', '–')
    """
    return f"{fixed(pair[0], digits)} to {fixed(pair[1], digits)}" if is_pair(pair) else MISSING


def with_interval(value: Any, pair: Any, digits: int = 3) -> str:
    """A number with its interval behind it.

    >>> with_interval(0.63, (0.53, 0.73))
    '0.630 (0.530 to 0.730)'
    """
    return f"{fixed(value, digits)} ({between(pair, digits)})"


def setting_text(value: Any) -> str:
    """A setting as it is read.

    >>> setting_text(0.00012), setting_text(2), setting_text("cosine")
    ('0.00012', '2', 'cosine')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def rate(share: Any, pair: Any = None) -> str:
    """A share with its interval behind it, where there is one.

    >>> rate(0.6, (0.512, 0.689)), rate(0.6), rate(None)
    ('60.0% (51.2 to 68.9%)', '60.0%', '–')
    """
    return percent(share) + (f" ({interval(pair)})" if is_pair(pair) else "")


def is_pair(pair: Any) -> TypeGuard[Sequence[float]]:
    """True for two finite numbers."""
    return isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_number, pair))


def points(difference: Any, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> points(0.042), points(-0.1), points(0.0)
    ('+4.2', '−10.0', '0.0')
    """
    if not is_number(difference):
        return MISSING
    text = fixed(100 * difference, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else "+" + text


def points_interval(pair: Any, digits: int = 1) -> str:
    """An interval of differences in percentage points, cut at the +-100 that a difference of shares can reach.

    >>> points_interval([-0.03, 0.11]), points_interval([-2.2, 0.5])
    ('−3.0 to +11.0', '−100.0 to +50.0')
    """
    if not is_pair(pair):
        return MISSING
    low, high = (min(max(end, -1.0), 1.0) for end in pair)
    return f"{points(low, digits)} to {points(high, digits)}"


def p_value(p: Any) -> str:
    """A p-value: two significant digits would promise too much below 0.001.

    >>> p_value(0.0304), p_value(1e-9), p_value(0.6)
    ('0.030', '<0.001', '0.60')
    """
    if not is_number(p):
        return MISSING
    if p < 0.001:
        return "<0.001"
    return fixed(p, 3 if p < 0.1 else 2)


def amount(value: Any) -> str:
    """A count with three significant digits and an SI prefix.

    >>> amount(1234567), amount(96), amount(2.5e13), amount(0)
    ('1.23 M', '96', '25.0 T', '0')
    """
    if not is_number(value):
        return MISSING
    for size, prefix in _SI:
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{fixed(scaled, 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0)} {prefix}"
    return fixed(value, 0 if float(value).is_integer() else 1)


def duration(seconds: Any) -> str:
    """A length of time in its natural unit.

    >>> duration(0.42), duration(41.6), duration(138), duration(3725), duration(200000)
    ('0.4 s', '42 s', '2 min 18 s', '1 h 2 min', '56 h')
    """
    if not is_number(seconds):
        return MISSING
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours >= 10:
        return f"{round(minutes / 60)} h"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def significant(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant digits, without an exponent where that stays short.

    >>> significant(0.012345), significant(1234.5), significant(3e-7), significant(12), significant(0.5)
    ('0.0123', '1234', '3e−7', '12', '0.5')
    """
    if not is_number(value):
        return MISSING
    if isinstance(value, int) or value == 0:
        return f"{int(value)}".replace("-", MINUS)
    exponent = math.floor(math.log10(abs(value)))
    if not -5 < exponent < 7:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{_strip(mantissa)}e{int(power)}".replace("-", MINUS)
    return _strip(f"{value:.{max(0, digits - 1 - exponent)}f}").replace("-", MINUS)


def _strip(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def breakable(text: str) -> Markup:
    """Escaped text that may go on in the next line behind an underscore: names are long, and break nowhere else.

    >>> breakable("all_arms & <b>")
    Markup('all_<wbr/>arms &amp; &lt;b&gt;')
    """
    return Markup(str(escape(spelled_out(text))).replace("_", "_<wbr/>"))


def as_code(text: str) -> Markup:
    """Words between backticks set as code; everything is escaped.

    >>> as_code("from `sft` & <b>")
    Markup('from <code>sft</code> &amp; &lt;b&gt;')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(spelled_out(text)))))
