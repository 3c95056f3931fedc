"""Shell scripts that run on an instance; `user_data` and `job` send them there."""

from importlib.resources import files


def script(name: str) -> str:
    """Return the text of a script of this folder."""
    return (files(__name__) / name).read_text(encoding="utf-8")
