"""Python's search for garbage, kept away from what is imported: none of that ever is any, and there is a lot of it.

Each full search walks through a million objects of torch and Ultralytics, which takes as long as a step; their imports
cause some, and Ultralytics asks for one at the end.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def left_out(package: str) -> Iterator[None]:
    """Import a package without a search, and leave what there is then out of all later ones; nothing where it is imported."""
    if package in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
