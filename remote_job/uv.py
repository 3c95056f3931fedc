"""uv, as it is run on a project's requirements: without the project's configuration and without our secrets."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_KEPT = frozenset(
    {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
        "UV_CACHE_DIR", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS",
        "UV_NO_INDEX", "UV_INDEX_STRATEGY", "UV_OFFLINE", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
    }
)  # fmt: skip


def run_uv(words: Sequence[str], folder: Path, seconds: float) -> str | None:
    """Run uv in a folder; return what is wrong: it is missing, refuses or takes too long. None where nothing is.

    Its environment has paths, proxies and the user's indexes, nothing else: a requirements file can name any variable as
    `${NAME}` in an address, so uv must have no secret to send there.
    """
    # The one beside this Python goes before one on PATH.
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        return "it needs uv, which is not installed here: pip install uv"
    kept = {name: value for name, value in os.environ.items() if name.upper() in _KEPT}
    try:
        done = subprocess.run(
            [uv, *words],
            cwd=folder,
            env={**kept, "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"uv was not done within {seconds:.0f} s"
    return done.stderr.strip() if done.returncode else None
