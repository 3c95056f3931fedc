"""How people read amounts: `3 h 10`, `42 s`, `$0.21`, `1.4 GB`."""

import math
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def human_duration(seconds: float) -> str:
    """Write a length of time to about two digits: `4.2 s`, `42 s`, `3 min 20 s`, `12 min`, `3 h 10`, `2 d 4 h`."""
    if not math.isfinite(seconds):
        return "without end"
    if seconds < 0:
        return f"-{human_duration(-seconds)}"
    # 9.95 and more rounds to 10.0, which is written `10 s`.
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds else "0 s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < 10 * _MINUTE:
        minutes, rest = divmod(whole, _MINUTE)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    # From the seconds again: a number that is rounded twice can be off by one.
    minutes = round(seconds / _MINUTE)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 2 * _DAY // _MINUTE:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest:02d}" if rest else f"{hours} h"
    days, hours = divmod(round(seconds / _HOUR), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def utc(at: float, form: str, *, otherwise: str = "unknown") -> str:
    """Write a time (Unix seconds) in UTC as `strftime` does; `otherwise` if it is no date from 1970 to 9999."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime(form) if at >= 0 else otherwise
    except (ValueError, OverflowError, OSError):  # infinite, or past the year 9999
        return otherwise


NEGLIGIBLE = Decimal("0.0005")
"""US dollars: what cost less is called free."""


def human_money(usd: Decimal | float) -> str:
    """Write US dollars to the cent, and to a tenth of a cent where a cent would hide them: `$0.21`, `$0.004`."""
    amount = _decimal(usd)
    if not amount.is_finite():
        return "no price"
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    if 0 < size < NEGLIGIBLE:
        return f"{sign}<$0.001"
    step = Decimal("0.001") if 0 < size < Decimal("0.0095") else Decimal("0.01")
    return f"{sign}${size.quantize(step, ROUND_HALF_UP)}"


def human_cost(usd: Decimal | float, where: str = "") -> str:
    """Write a cost; next to nothing is `free`, and a Ray cluster's (`where`) is `not counted`."""
    amount = _decimal(usd)
    if not amount.is_finite() or amount >= NEGLIGIBLE:
        return human_money(amount)
    return "not counted" if "ray" in where.lower().replace(",", " ").split() else "free"


def _decimal(usd: Decimal | float) -> Decimal:
    # From its shortest text: Decimal(0.1) would have 55 digits.
    return usd if isinstance(usd, Decimal) else Decimal(repr(float(usd)))


def human_bytes(count: int) -> str:
    """Write a size in decimal units, as disks and networks are sold: `812 B`, `1.4 GB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        # 999.5 kB and more would be written `1000 kB`.
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_number(value: float, digits: int = 3) -> str:
    """Write a metric or a loss with so many decimals; in four significant digits where that is long or hides the value."""
    value += 0.0  # a negative zero is a zero
    fixed = value == 0 or 10**-digits <= abs(value) < 1e6
    return f"{value:.{digits}f}" if fixed else f"{value:.4g}"
