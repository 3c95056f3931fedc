"""uv, as it is run on a project's requirements: without the project's configuration and without our secrets."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = frozenset(
    {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
        "UV_CACHE_DIR", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS",
        "UV_NO_INDEX", "UV_INDEX_STRATEGY", "UV_OFFLINE", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
    }
)  # fmt: skip


def find_uv() -> str | None:
    """Return the path of the uv beside this Python, or else of the one on PATH."""
    return shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def uv_environment(present: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a uv process: paths, proxies and the user's indexes, nothing else.

    A requirements file can name any variable as `${NAME}` in an address, so uv must have no secret to send there.
    """
    kept = {name: value for name, value in present.items() if name.upper() in _KEPT}
    return {**kept, "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1"}
