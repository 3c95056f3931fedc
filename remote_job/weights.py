"""Starting weights, fetched in a stage of their own before a training, and kept in the store.

    weights/<file>          the file
    weights/<file>.json     its sha256, size and source, written after it

A file is fetched once for all machines that share the store, and known by its sha256 from then on. Imports neither
torch nor Ultralytics.
"""

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gpu_offload.errors import OffloadError
from gpu_offload.infra import http
from gpu_offload.infra.store.errors import ObjectExistsError
from gpu_offload.infra.store.files import sha256_of
from gpu_offload.infra.store.protocol import ObjectStore
from gpu_offload.remote_job.spec import Weights

ASSETS = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
"""Where Ultralytics 8.4 publishes the weights that it knows by name."""
PINNED = {
    "yolo11n.pt": "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1",
    "yolo11s.pt": "85a76fe86dd8afe384648546b56a7a78580c7cb7b404fc595f97969322d502d5",
    "yolo11m.pt": "d5ffc1a674953a08e11a8d21e022781b1b23a19b730afc309290bd9fb5305b95",
    "yolo11l.pt": "9ebd0e09d59811db4b1d61e2bc6730649608b1ac47f8dd01e2da6bca7c20023f",
    "yolo11x.pt": "7bc158aa95c0ebfdd87f70f01653c1131b93e92522dbe15c228bcd742e773a24",
    "yolo26n.pt": "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef",
    "yolo26s.pt": "646f8bc3fe0a656803d95c294f7852321748cb29d13466a1af8862e2db384a1b",
    "yolo26m.pt": "401cea9ab23ad19246ff7744859816bc599f350e93c9dd30367b6f0a0745d0b7",
    "yolo26l.pt": "9fe3c544f2b19bebad7ea41e76d7ad3d88b7c2f10d11d24430c5311f6b32db26",
    "yolo26x.pt": "9fdd44a31c504547ffb81d2c6d9e6dac3493c8eaa8b0398d3f43bae6c7003e92",
    "yolov8n.pt": "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36",
    "yolov8s.pt": "1f47a78bf100391c2a140b7ac73a1caae18c32779be7d310658112f7ac9aa78a",
}
"""sha256 of files below `ASSETS`, as several projects that pin them agree. Other names are trusted at their first
download, and known by their sha256 from then on."""
FILE = re.compile(r"[A-Za-z0-9][\w.-]*\.pth?", re.ASCII)
MAX_BYTES = 4 * 2**30


class WeightsUnavailableError(OffloadError):
    """The weights cannot be fetched; the text gives the remedy."""


class WeightsMismatchError(OffloadError):
    """A file is not the one that its sha256 promises."""


def resolve(
    reference: str, *, store: ObjectStore | None, cache: Path, assets: str = ASSETS
) -> Weights | None:
    """Return weights by their name, fetched and verified; None where the name is a model definition.

    Args:
        reference: `*.yaml` (no weights), a name that Ultralytics knows (`yolo11n.pt`), `https://...pt#sha256=<hex>`,
            `store:KEY`, or a local file.
        store: Where they are kept; None keeps them on this machine only.
        cache: A local folder for them.
        assets: Where Ultralytics' own weights are.

    Returns:
        sha256, the path of the local file and, with a store, the key there.

    Raises:
        WeightsUnavailableError: They cannot be fetched.
        WeightsMismatchError: What was fetched is not what the sha256 promises.
    """
    if reference.endswith((".yaml", ".yml")):
        return None
    cache.mkdir(parents=True, exist_ok=True)
    if reference.startswith("store:"):
        return _from_store(reference.removeprefix("store:"), store, cache)
    if "://" in reference:
        return _from_url(reference, store, cache)
    if Path(reference).is_file():
        # Under such a name, the manifest of the model would claim that it began with Ultralytics' weights.
        if PINNED.get(reference) not in {None, sha256_of(Path(reference))}:
            raise WeightsMismatchError(
                f"{reference}: the file here has the name of Ultralytics' weights and is not them; give it another name"
            )
        return _keep(Path(reference), store, source=Path(reference).name)
    if FILE.fullmatch(reference):
        return _official(reference, store, cache, assets)
    raise WeightsUnavailableError(
        f"{reference}: is neither a file, nor a name of Ultralytics' weights (yolo11n.pt), nor store:KEY, nor "
        "https://...pt#sha256=..."
    )


def faults(weights: Weights, *, has_store: bool) -> list[str]:
    """Return what is wrong with the weights of a spec."""
    result = []
    if weights.path is None and weights.key is None:
        result.append("weights: give path or key")
    elif weights.key is None and not Path(str(weights.path)).is_file():
        result.append(f"weights.path: {weights.path} is not a file")
    elif weights.key is not None and not has_store and not (weights.path and Path(weights.path).is_file()):
        result.append("weights.key: needs a store")
    if not re.fullmatch(r"[0-9a-f]{64}", weights.sha256):
        result.append("weights.sha256: is not 64 hexadecimal digits")
    return result


def local(weights: Weights, *, store: ObjectStore | None, folder: Path) -> Path:
    """Return the local file of a spec's weights, downloaded if need be, and verified in any case.

    Raises:
        WeightsMismatchError: The file is not the one that was meant.
    """
    if weights.path is not None and Path(weights.path).is_file():
        path = Path(weights.path)
        if (found := sha256_of(path)) != weights.sha256:
            raise WeightsMismatchError(f"{path}: has sha256 {found}, the spec means {weights.sha256}")
        return path
    assert store is not None  # noqa: S101 - the spec was checked
    assert weights.key is not None  # noqa: S101 - as above
    path = folder / weights.key.rsplit("/", 1)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    store.download(weights.key, path, sha256=weights.sha256)
    return path


def _from_store(key: str, store: ObjectStore | None, cache: Path) -> Weights:
    if store is None:
        raise WeightsUnavailableError(f"store:{key}: there is no store to look in")
    if store.stat(key) is None:
        raise WeightsUnavailableError(
            f"store:{key}: there is no such object in the store; upload the file first"
        )
    known = _read_json(store, f"{key}.json")
    # Keys in different folders may end in the same file name.
    path = cache / hashlib.sha256(key.encode()).hexdigest()[:16] / key.rsplit("/", 1)[-1]
    if not (known and path.is_file() and sha256_of(path) == known.get("sha256")):
        store.download(key, path, sha256=known.get("sha256") if known else None)
    return Weights(sha256=sha256_of(path), path=str(path), key=key)


def _from_url(reference: str, store: ObjectStore | None, cache: Path) -> Weights:
    url, _, fragment = reference.partition("#")
    sha256 = fragment.removeprefix("sha256=").lower()
    name = Path(unquote(urlsplit(url).path)).name
    if not fragment.startswith("sha256=") or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise WeightsUnavailableError(
            f"{reference}: add the file's sha256: {url}#sha256=<64 hexadecimal digits>"
        )
    if not FILE.fullmatch(name):
        raise WeightsUnavailableError(f"{reference}: does not name a .pt or .pth file")
    path = cache / f"{sha256[:16]}-{name}"
    key = f"weights/{path.name}"
    if not (path.is_file() and sha256_of(path) == sha256):
        if store is not None and store.stat(key) is not None:
            store.download(key, path, sha256=sha256)
        else:
            fetch(url, path, sha256=sha256)
    return _keep(path, store, source=url, key=key)


def _official(name: str, store: ObjectStore | None, cache: Path, assets: str) -> Weights:
    key, path = f"weights/{name}", cache / name
    pinned = PINNED.get(name) if assets == ASSETS else None
    known = _read_json(store, f"{key}.json") if store is not None else None
    if store is not None and known is not None:
        sha256 = str(known.get("sha256"))
        if pinned is not None and sha256 != pinned:
            raise WeightsMismatchError(
                f"{key}.json in {store.url} says sha256 {sha256}, and {name} of Ultralytics' has {pinned}: "
                f"look who wrote it, then delete {key} and {key}.json"
            )
        if not (path.is_file() and sha256_of(path) == sha256):
            store.download(key, path, sha256=sha256)
        return Weights(sha256=sha256, path=str(path), key=key)
    if not path.is_file() or (pinned is not None and sha256_of(path) != pinned):
        fetch(f"{assets}/{name}", path, sha256=pinned)
    return _keep(path, store, source=f"{assets}/{name}", key=key)


def _keep(path: Path, store: ObjectStore | None, *, source: str, key: str | None = None) -> Weights:
    """Create a file in the store, and then its note; what is there with the same content is left as it is.

    Raises:
        WeightsMismatchError: Another file is there under this name.
    """
    sha256 = sha256_of(path)
    if store is None:
        return Weights(sha256=sha256, path=str(path))
    key = key or f"weights/{sha256[:16]}-{path.name}"
    if _read_json(store, f"{key}.json") is None:
        note = {"sha256": sha256, "size": path.stat().st_size, "source": source}
        try:
            # The note comes last: it says that the file is whole.
            store.upload(key, path, create=True)
            store.create(f"{key}.json", json.dumps(note, indent=1).encode())
        except ObjectExistsError as error:
            raise WeightsMismatchError(
                f"{key}: the store has another file under this name than {source} (sha256 {sha256}); look who wrote it, "
                f"then delete {key} and {key}.json"
            ) from error
    return Weights(sha256=sha256, path=str(path), key=key)


def _read_json(store: ObjectStore, key: str) -> dict[str, Any] | None:
    if store.stat(key) is None:
        return None
    body, _ = store.read(key)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def fetch(url: str, path: Path, *, sha256: str | None = None, limit: int = MAX_BYTES) -> None:
    """Download a file: whole or not at all, no larger than `limit` bytes, over TLS (or from this machine).

    Raises:
        WeightsUnavailableError: The server cannot be reached, refuses, or sends too much or too little.
        WeightsMismatchError: The content has another sha256.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file, http.ask(url) as answer:
            for chunk in http.chunks(answer, limit):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if sha256 is not None and digest.hexdigest() != sha256:
            raise WeightsMismatchError(f"{url}: has sha256 {digest.hexdigest()}, promised was {sha256}")
        temporary.replace(path)
    except (http.HttpError, OSError) as error:
        raise WeightsUnavailableError(f"weights cannot be fetched: {error}; {_ADVICE}") from error
    finally:
        temporary.unlink(missing_ok=True)


_ADVICE = (
    "train from scratch (training.model = a .yaml), or put the file into the store where the network allows it "
    "and name it store:KEY"
)
