"""Keys by which a listing, which is in order of the keys, begins with what is newest."""

LAST_SECOND = 9_999_999_999
"""In November 2286; a later time counts as it."""


def newest_first(at: float, name: str) -> str:
    """Return a name that sorts before those of earlier times; `at` in Unix seconds."""
    return f"{max(0, LAST_SECOND - int(at)):010d}-{name}"
