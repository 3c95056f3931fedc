"""Keeps an application's copy of a published model up to date. Import this file, or copy it: it needs only Python.

    from model_client import ModelClient

    model = ModelClient("https://models.example.org", "models").get()
    network = load(model.path)

`get` returns the newest good model. It asks the server at most once every `interval`, with a conditional request that
costs no transfer while nothing changed. A download resumes where it broke off, counts only once its size and sha256 are
right, and is renamed into place, so that a path that `get` returned is always a whole model. Offline, and whatever the
server answers, the previous model stays in use. Several processes may share the folder.

The server needs no listing and no account: static files under https, laid out as gpu-offload publishes them, or a
GitHub release. `listing=True` reads any public bucket instead, and takes the object that was modified last.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    import socket
    from collections.abc import Callable, Iterator
    from typing import IO, Any

    Progress = Callable[[int, int | None], object]
    """Called with the bytes received so far and the size of the file, None where the size is not known."""

AGENT = "gpu-offload-client/1"
CHUNK = 1 << 18
LARGEST_DOCUMENT = 16 << 20
LARGEST_INDEX = 128 << 20
SLOWEST = 1_000
"""Bytes a second. A server that sends less for `timeout` seconds has stalled, although no single read waits that long."""

MOST_BESIDE = 2 << 20
"""Bytes in a row that are no content (headers, chunk sizes, trailers), which a server could send without end."""

FACTS = ".model.json"
"""Suffix of the file that describes a model in the folder. It is written after the model: one without it is not whole."""

LATEST, NEVER = 1e12, float("-inf")
"""Unix seconds: later than any clock shows, and earlier."""

MOST_PAGES = 100
"""Pages of a listing, with 1,000 objects each."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FORMAT = re.compile(r"[A-Za-z0-9]{1,16}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODEL = re.compile(r"model(?:\.[A-Za-z0-9]{1,16}){0,2}", re.ASCII)
_RELEASE = re.compile(r"/[^/]+/[^/]+/releases/download/[^/]+$")
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors that an answer of an unforeseen form can cause."""


class NoModelError(Exception):
    """There is no model that may be used, and none could be downloaded; the text says why."""


class TransferError(Exception):
    """The server did not deliver what was asked for. `passing` says whether another try may help."""

    def __init__(self, message: str, *, passing: bool = True, status: int | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status


class DamagedError(TransferError):
    """A download does not have the size, sha256 or MD5 that it should have."""


class Release:
    """A version as the server's documents name it; `share` is the share of installations that it is meant for."""

    __slots__ = ("etag", "file", "key", "semver", "sha256", "share", "size", "version")

    def __init__(
        self,
        version: str,
        *,
        sha256: str | None = None,
        size: int | None = None,
        semver: str | None = None,
        share: float = 1.0,
        key: str | None = None,
        etag: str | None = None,
        file: str = "model.pt",
    ) -> None:
        self.file = file
        self.version = version
        self.sha256 = sha256
        self.size = size
        self.semver = semver
        self.share = share
        self.key = key
        self.etag = etag


class Model:
    """A whole, verified model on this machine.

    Attributes:
        path: The file. It stays until `keep` newer versions have come.
        version: The registry's name of the version; `semver` is its number, None for versions without one.
        sha256: Of the file, 64 hex digits; `size` in bytes.
        updated: Whether this call downloaded it.
        problem: What kept this call from looking for, or from downloading, a newer one; None if nothing did.
    """

    __slots__ = ("path", "problem", "semver", "sha256", "size", "updated", "version")

    def __init__(self, path: Path, version: str, semver: str | None, sha256: str, size: int) -> None:
        self.path = path
        self.version = version
        self.semver = semver
        self.sha256 = sha256
        self.size = size
        self.updated = False
        self.problem: str | None = None


class ModelClient:
    """An application's view of one published model.

    Args:
        url: Where the store is published: https://HOST/PATH; plain http only to this machine.
        folder: Where models are kept; only for this purpose, one folder for each `url` and `alias`.
        alias: What to follow: `stable`, or `candidate` for those who test.
        export: Take the model in a format that it was exported to, such as "onnx"; versions without it are passed over. One
            folder for each format.
        pin: Stay on a version ("1.4.0", or its digits), or within a line ("1", "1.4").
        minimum: The lowest version that the application works with, such as "1.2.0".
        interval: Seconds between two looks at the server, also after one that failed.
        keep: How many good models are kept, the one in use included.
        timeout: Seconds that the server may be silent, or send next to nothing.
        patience: Seconds that one `get` may spend on the network while there is a usable model; None: no limit. What
            was downloaded until then is kept for the next time.
        largest: Bytes that a model may have.
        installation: Identifies this installation in a phased rollout; None: a random name kept in the folder.
        progress: Called while a model is downloaded; an exception that it raises ends the download and `get`.
        listing: Take the newest object of a public bucket's listing; no aliases, versions, yanks, or sha256 then.
        prefix: Of the objects that count in a listing, and `suffix`.
        tries: Attempts in a row without progress, `pause` seconds after the first, twice as long after each other.

    Raises:
        ValueError: An argument is not what it must be.
    """

    def __init__(
        self,
        url: str,
        folder: str | os.PathLike[str],
        *,
        alias: str = "stable",
        export: str | None = None,
        pin: str | None = None,
        minimum: str | None = None,
        interval: float = 3600,
        keep: int = 2,
        timeout: float = 20,
        patience: float | None = None,
        largest: int = 4 << 30,
        installation: str | None = None,
        progress: Progress | None = None,
        listing: bool = False,
        prefix: str = "",
        suffix: str = ".pt",
        tries: int = 4,
        pause: float = 0.5,
    ) -> None:
        check_url(url)
        if "?" in url:
            raise ValueError(f"{url!r}: write https://HOST/PATH; names of files are appended to it")
        if not _NAME.fullmatch(alias):
            raise ValueError(f"alias {alias!r}: letters, digits, '.', '_' and '-' only")
        if export is not None and not _FORMAT.fullmatch(export):
            raise ValueError(f"export {export!r}: write for example onnx")
        if minimum is not None and len(_numbers(minimum)) != 3:
            raise ValueError(f"minimum {minimum!r}: write a version such as 1.2.0")
        if keep < 1 or tries < 1:
            raise ValueError("keep and tries: at least 1")
        self.url = url.rstrip("/")
        self.folder = Path(folder)
        self.alias = alias
        self.export = export
        self.pin = pin.removeprefix("v") if pin else None
        self.minimum = minimum
        self.interval = interval
        self.keep = keep
        self.timeout = timeout
        self.patience = patience
        self.largest = largest
        self.progress = progress
        self.listing = listing
        self.prefix = prefix
        self.suffix = suffix
        self.tries = tries
        self.pause = pause
        self._installation = installation
        self._checked_at = NEVER

    def get(self) -> Model:
        """Return the newest good model, downloading it where there is a newer one.

        Raises:
            NoModelError: There is none that may be used.
        """
        state = self._state()
        model = self._good(state)
        if model is not None and not self._is_due(state):
            return model
        try:
            with self._locked(wait=model is None) as locked:
                if not locked and model is not None:
                    return model  # another process is checking; its answer is used next time
                state = self._state()
                model = self._good(state)
                if model is not None and not self._is_due(state):
                    return model
                try:
                    return self._refresh(state, model)
                except OSError:
                    self._clear()  # on a full disk, a partial download would leave no room for a smaller model
                    raise
        except OSError as error:  # a full disk, a folder that cannot be written to
            problem = f"{error.filename or self.folder}: {error.strerror or error}"
            # A download that was cut may have left what was in use before.
            return self._kept(self._good(self._state()), problem)

    # ------------------------------------------------------------------------------------- decisions

    def _refresh(self, state: dict[str, Any], model: Model | None) -> Model:
        """Look at the server, and download what it names. The folder is locked."""
        until = None if self.patience is None or model is None else time.monotonic() + self.patience
        # With a model in use, looking for a newer one is not worth a wait: one try.
        web = Web(self.timeout, until, 1 if model is not None else self.tries, self.pause)
        # Noted before the look, so that one that fails counts for the interval as well.
        state["checked_at"] = self._checked_at = time.time()
        before = dict(state)
        try:
            try:
                wanted = self._look(web, state)
            except _UNREADABLE as error:
                raise _unreadable(self.url, error) from error
            finally:
                self._save(state)
        except TransferError as error:
            return self._kept(model, str(error))
        except RecursionError as error:  # the document can be read, but is nested too deeply to be saved
            self._save(before)
            return self._kept(model, str(_unreadable(self.url, error)))
        web.tries = self.tries
        if wanted is None:
            return self._kept(self._good(state), f"{self.url}: no version that may be used ({self._rules()})")
        there = self._installed(wanted.version)
        if there is None or wanted.sha256 not in {None, there.sha256}:
            try:
                there = self._download(web, wanted)
                there.updated = True
            except TransferError as error:
                return self._kept(self._good(state), str(error))
        if state.get("current") != there.version:
            state["current"] = there.version
            self._save(state)
        self._prune(there.version, state.get("document") or {})
        return there

    def _good(self, state: dict[str, Any]) -> Model | None:
        """Return the model that the last look named, else the one in use, else the newest that may be used."""
        document = state.get("document") or {}
        wanted = None if self.listing else self._choose(document)
        names = [wanted.version] if wanted is not None else []
        names += [str(state.get("current") or ""), *self._versions()]
        for name in names:
            if name and (model := self._installed(name)) is not None:
                release = Release(model.version, sha256=model.sha256, semver=model.semver)
                if self.listing or is_usable(release, document, self.pin, self.minimum):
                    return model
        return None

    def _choose(self, document: dict[str, Any]) -> Release | None:
        return choose(document, self.pin, self.minimum, self._share_of, self.export)

    def _is_due(self, state: dict[str, Any]) -> bool:
        # A clock that was set back must not stop the looking for years; a full disk does not remember the last look.
        now = time.time()
        return not any(0 <= now - at < self.interval for at in (_time(state, "checked_at"), self._checked_at))

    def _kept(self, model: Model | None, problem: str) -> Model:
        if model is None:
            raise NoModelError(f"no model in {self.folder}, and none could be downloaded: {problem}")
        model.problem = problem
        return model

    def _rules(self) -> str:
        rules = [f"alias {self.alias}"]
        rules += [f"as {self.export}"] if self.export else []
        rules += [f"pinned to {self.pin}"] if self.pin else []
        rules += [f"at least {self.minimum}"] if self.minimum else []
        return ", ".join(rules)

    def _share_of(self, version: str) -> float:
        """Return where in 0..1 this installation stands in the rollout of a version; the same at every call."""
        import hashlib

        if self._installation is None:
            import uuid

            path, name = self.folder / "installation", ""
            with contextlib.suppress(OSError, ValueError):
                name = path.read_text().strip()
            if not name:
                name = uuid.uuid4().hex
                with contextlib.suppress(OSError):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    _replace(path, name.encode())
            self._installation = name
        digest = hashlib.sha256(f"{self._installation}:{version}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    # ---------------------------------------------------------------------------------- the server

    def _look(self, web: Web, state: dict[str, Any]) -> Release | None:
        """Return the release to use, and keep the server's document in the state."""
        if self.listing:
            return newest(web, self.url, self.prefix, self.suffix)
        key = f"aliases/{self.alias}.json"
        etag = state.get("etag") if state.get("document") else None
        try:
            answer = web.document(self._address(key), etag)
        except TransferError as error:
            if error.status not in {404, 410} or not self.pin:
                raise
            # There is no alias, but the pinned version may be in the index.
            answer = None if state.get("document") else ({}, "")
        seen = state.get("document") or {}
        document, etag = answer if answer is not None else (seen, state.get("etag"))
        if answer is not None and not is_alias(document) and not (self.pin and not document):
            raise TransferError(f"{self._address(key)}: not an alias of a registry", passing=False)
        if answer is not None and is_older(document, seen):
            raise TransferError(f"{self._address(key)}: a cache answers with an earlier state", passing=False)
        found = self._choose(document)
        state["document"], state["etag"] = document, etag
        if found is None and self.pin:
            found = self._in_index(web, self.pin)
        if found is not None and (found.size is None or found.sha256 is None):
            found = self._in_manifest(web, found)
        return found

    def _in_index(self, web: Web, pin: str) -> Release | None:
        """Return exactly the pinned version, which is not in the alias's history."""
        for name in self._versions():
            model = self._installed(name)
            if model is not None and pin in {model.version, model.semver}:
                return Release(model.version, sha256=model.sha256, size=model.size, semver=model.semver)
        address = self._address("index.json")
        index, _ = web.document(address, None, LARGEST_INDEX) or ({}, "")
        entries = index.get("versions")
        if not isinstance(entries, list):
            raise TransferError(f"{address}: not the index of a registry", passing=False)
        releases = [_release(entry, self.export) for entry in entries]
        return next((r for r in releases if r is not None and pin in {r.version, r.semver}), None)

    def _in_manifest(self, web: Web, release: Release) -> Release:
        """Return a release with the sha256 and size that old aliases lack. Raises TransferError."""
        address = self._address(f"models/{release.version}/manifest.json")
        facts, _ = web.document(address, None) or ({}, "")
        model = facts.get("model")
        file = {key: model.get(key) for key in ("name", "sha256", "size")} if isinstance(model, dict) else {}
        found = _release({"version": release.version, "semver": release.semver, **file})
        if found is None or found.sha256 is None or release.sha256 not in {None, found.sha256}:
            raise TransferError(f"{address}: not the manifest of {release.version}", passing=False)
        return found

    def _address(self, key: str) -> str:
        # A GitHub release has no folders.
        return f"{self.url}/{re.sub(r'[^A-Za-z0-9._-]', '-', key) if _RELEASE.search(self.url) else key}"

    def _download(self, web: Web, release: Release) -> Model:
        key = release.key or f"models/{release.version}/{release.file}"
        suffix = release.file.removeprefix("model")
        path = self.folder / f"{release.version}{suffix if suffix != FACTS else ''}"
        if not self._is_free(release.version, path.name):
            raise TransferError(
                f"{self.url}: version {release.version} has a file that is named as another one in {self.folder}",
                passing=False,
            )
        sha256 = web.download(
            self._address(key) if release.key is None else f"{self.url}/{key}",
            path,
            size=release.size,
            sha256=release.sha256,
            etag=release.etag,
            largest=self.largest,
            progress=self.progress,
        )
        status = path.stat()
        facts = {
            "version": release.version,
            "semver": release.semver,
            "file": path.name,
            "sha256": sha256,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            # Later than all others even if the clock was set back: the newest downloads are kept.
            "downloaded_at": max(
                time.time(), *(_time(f, "downloaded_at") + 1 for f in self._facts().values()), 0
            ),
        }
        _replace(self.folder / f"{release.version}{FACTS}", json.dumps(facts).encode())
        return Model(path, release.version, release.semver, sha256, status.st_size)

    # ------------------------------------------------------------------------------------ the folder

    def _state(self) -> dict[str, Any]:
        """Return what the last look saved; empty if there is nothing, or it belongs to another address."""
        state = _read(self.folder / "state.json")
        return state if state.get("of") == self._of() else {}

    def _save(self, state: dict[str, Any]) -> None:
        state["of"] = self._of()
        _replace(self.folder / "state.json", json.dumps(state).encode())

    def _of(self) -> list[Any]:
        """Return what a state belongs to."""
        return [self.url, self.alias, self.listing, *([self.export] if self.export else [])]

    def _versions(self) -> list[str]:
        """Return the versions in the folder, the newest download first."""
        facts = self._facts()
        return sorted(facts, key=lambda name: (_time(facts[name], "downloaded_at"), name), reverse=True)

    def _facts(self) -> dict[str, dict[str, Any]]:
        """Return the description of each version in the folder."""
        return {path.name.removesuffix(FACTS): _read(path) for path in self.folder.glob(f"*{FACTS}")}

    def _installed(self, version: str) -> Model | None:
        """Return a version that is whole in the folder; hashed again if the file was touched since its download."""
        if not _NAME.fullmatch(version):
            return None
        facts_path = self.folder / f"{version}{FACTS}"
        facts = _read(facts_path)
        path = self._file(version, facts)
        if self.export and path.suffix != f".{self.export}":
            return None
        sha256, size = facts.get("sha256"), facts.get("size")
        try:
            status = path.stat()
            if not isinstance(sha256, str) or status.st_size != size:
                return None
            is_touched = status.st_mtime_ns != facts.get("mtime_ns")
            if is_touched and sha256_of(path) != sha256:
                return None
        except OSError:  # also where another process removes it meanwhile
            return None
        if is_touched:
            with contextlib.suppress(OSError):
                _replace(facts_path, json.dumps({**facts, "mtime_ns": status.st_mtime_ns}).encode())
        return Model(path, version, facts.get("semver"), sha256, size)

    def _file(self, version: str, facts: dict[str, Any]) -> Path:
        """Return a model's path. Others may write to the folder, so that the name must be one of ours."""
        name = facts.get("file")
        is_ours = isinstance(name, str) and _NAME.fullmatch(name) and f"{name}.".startswith(f"{version}.")
        return self.folder / (name if is_ours and name else f"{version}.pt")

    def _is_free(self, version: str, name: str) -> bool:
        """Whether the name of a version's file is neither that of our own documents nor of another version's file."""
        others = (
            self._file(other, _read(self.folder / f"{other}{FACTS}"))
            for other in self._versions()
            if other != version
        )
        # File systems of Windows and macOS ignore case.
        taken = {"state.json", "installation", *(path.name.lower() for path in others)}
        return name.lower() not in taken and not name.lower().endswith(FACTS)

    def _prune(self, current: str, document: dict[str, Any]) -> None:
        """Remove what is older than the `keep` newest, what is yanked, and what killed processes left."""
        yanked = document.get("yanked") or {}
        others = [name for name in self._versions() if name != current]
        good = [name for name in others if name not in yanked][: self.keep - 1]
        for name in set(others) - set(good):
            facts_path = self.folder / f"{name}{FACTS}"
            for path in (self._file(name, _read(facts_path)), facts_path):
                with contextlib.suppress(OSError):  # on Windows, while a process has it open: next time
                    path.unlink()
        self._clear()

    def _clear(self) -> None:
        """Remove unfinished files."""
        for path in (*self.folder.glob(".*.part"), *self.folder.glob(".*.new")):
            with contextlib.suppress(OSError):
                path.unlink()

    @contextlib.contextmanager
    def _locked(self, *, wait: bool) -> Iterator[bool]:
        """Lock the folder against other processes; yield False if another one holds it and we need not `wait`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a+b") as file:
            while not (locked := _lock(file)) and wait:
                time.sleep(0.05)
            yield locked


def choose(
    document: dict[str, Any],
    pin: str | None = None,
    minimum: str | None = None,
    share_of: Callable[[str], float] = lambda _: 0.0,
    export: str | None = None,
) -> Release | None:
    """Return the release that an alias means for one installation, None if it means none.

    It is the newest in the alias's history that exists in the format, is not yanked, is not below the lowest version
    allowed, is within the pin, and is rolled out to this installation or pinned exactly. An alias without a history
    counts as a history of one.
    """
    seen = set()
    for entry in [document, *reversed(document.get("history") or [])]:
        release = _release(entry, export)
        if release is None or release.version in seen:
            continue
        seen.add(release.version)
        if not is_usable(release, document, pin, minimum):
            continue
        exact = pin is not None and pin in {release.version, release.semver}
        if not exact and release.share < 1.0 and share_of(release.version) >= release.share:
            continue
        return release
    return None


def is_alias(document: dict[str, Any]) -> bool:
    """Whether a document has the form of an alias, unlike a sign-in page that is served with status 200."""
    minimum = document.get("minimum")
    return (
        _release(document) is not None
        and isinstance(document.get("history", []), list)
        and isinstance(document.get("yanked", {}), dict)
        and (minimum is None or (isinstance(minimum, str) and len(_numbers(minimum)) == 3))
    )


def is_older(document: dict[str, Any], seen: dict[str, Any]) -> bool:
    """Whether an alias is an earlier state of one that was seen, served by a cache.

    A history only grows, so that a rollback is never older. A registry that was begun anew has another history and is
    newer.
    """
    moves, known = _moves(document), _moves(seen)
    return moves <= known and (len(moves), _serial(document)) < (len(known), _serial(seen))


def _moves(document: dict[str, Any]) -> set[tuple[Any, ...]]:
    history = document.get("history") or [{**document, "at": document.get("moved_at")}]
    fields = ("version", "at", "rollout")
    return {tuple(map(move.get, fields)) for move in history if isinstance(move, dict)}


def _serial(document: dict[str, Any]) -> int:
    serial = document.get("serial")
    return serial if isinstance(serial, int) else 0


def is_usable(release: Release, document: dict[str, Any], pin: str | None, minimum: str | None) -> bool:
    """Whether a release may be used: within the pin, not too old, and not yanked unless it is exactly what is pinned."""
    number = _numbers(release.semver or "")
    if pin is not None and pin in {release.version, release.semver}:
        return True
    if pin is not None:
        line = _numbers(pin)
        if not line or number[: len(line)] != line:
            return False
    lowest = [_numbers(text) for text in (minimum, document.get("minimum")) if text]
    if any(number < low for low in lowest):
        return False
    return release.version not in (document.get("yanked") or {})


def _release(entry: Any, export: str | None = None) -> Release | None:
    """Read a release from a document; None if it could not be fetched safely, or does not exist in the format."""
    if not isinstance(entry, dict):
        return None
    version = entry.get("version")
    file: Any = entry
    if export is not None and (entry.get("file") or entry.get("name")) != f"model.{export}":
        exports = entry.get("exports")
        file = exports.get(export) if isinstance(exports, dict) else None
        if not isinstance(file, dict) or not file.get("sha256"):
            return None
    sha256, size = file.get("sha256"), file.get("size")
    if not isinstance(version, str) or not _NAME.fullmatch(version):
        return None
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        return None
    semver, share, name = entry.get("semver"), entry.get("rollout"), file.get("file") or file.get("name")
    if share is not None and not (isinstance(share, (int, float)) and 0 <= share <= 1):
        return None
    return Release(
        version,
        sha256=sha256,
        size=size if isinstance(size, int) and size >= 0 else None,
        semver=semver if isinstance(semver, str) else None,
        share=1.0 if share is None else float(share),
        # The alias itself also has a `name`, which is no file's.
        file=name if isinstance(name, str) and _MODEL.fullmatch(name) else "model.pt",
    )


def newest(web: Web, url: str, prefix: str, suffix: str) -> Release:
    """Return the object of a public bucket that was modified last, over all pages of the listing.

    S3's ListObjectsV2: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
    """
    from urllib.parse import quote, urlencode
    from xml.etree import ElementTree as ET

    found: list[tuple[str, str, str, int]] = []
    query = {"list-type": "2", "prefix": prefix}
    for _ in range(MOST_PAGES):
        body, _ = web.read(f"{url}/?{urlencode(query)}", None) or (b"", "")
        text = body.decode("utf-8", "replace")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise TransferError(f"{url}: the listing declares entities, as no bucket's does", passing=False)
        try:
            page = ET.fromstring(text)  # noqa: S314 - no entities are declared, so that nothing expands
        except ET.ParseError as error:
            raise TransferError(f"{url}: not a bucket's listing ({error})", passing=False) from None
        for item in page.iterfind("{*}Contents"):
            key, size = item.findtext("{*}Key") or "", _decimal(item.findtext("{*}Size") or "")
            if key.endswith(suffix):
                if size is None:
                    raise TransferError(f"{url}: the listing gives no size of {key}", passing=False)
                etag = (item.findtext("{*}ETag") or "").strip('"')
                found.append((item.findtext("{*}LastModified") or "", key, etag, size))
        token = page.findtext("{*}NextContinuationToken")
        if page.findtext("{*}IsTruncated") != "true" or not token:
            break
        query["continuation-token"] = token
    if not found:
        raise TransferError(f"{url}: the bucket lists no object named {prefix}*{suffix}", passing=False)
    _, key, etag, size = max(found)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{key.removesuffix(suffix)}-{etag[:12]}").lstrip(".-_")[-120:]
    return Release(name.lstrip(".-_") or "model", size=size, key=quote(key), etag=etag)


class Web:
    """Requests without credentials, over https; redirects lead to no other scheme and to no private address.

    Args:
        timeout: Seconds that the server may be silent.
        until: `time.monotonic` at which to give up; None: never.
        tries: Attempts in a row without progress; `pause` seconds after the first, twice as long after each other.
        pause: See `tries`.
    """

    def __init__(
        self, timeout: float = 20, until: float | None = None, tries: int = 4, pause: float = 0.5
    ) -> None:
        self.timeout = timeout
        self.until = until
        self.tries = tries
        self.pause = pause

    def document(
        self, url: str, etag: str | None, largest: int = LARGEST_DOCUMENT
    ) -> tuple[dict[str, Any], str] | None:
        """Return a JSON object, and its etag or date; None if it has not changed. Raises TransferError."""
        answer = self.read(url, etag, largest)
        if answer is None:
            return None
        try:
            found = json.loads(answer[0])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise TransferError(f"{url}: not a document of a registry", passing=False)
        return found, answer[1]

    def read(self, url: str, etag: str | None, largest: int = LARGEST_DOCUMENT) -> tuple[bytes, str] | None:
        """Return a small file, and its etag or date; None if it has not changed. Raises TransferError."""
        # Some static servers send a date and no etag; an etag has quotes.
        condition = "If-None-Match" if etag and '"' in etag else "If-Modified-Since"
        failures = 0
        while True:
            try:
                with self._opened(url, {condition: etag} if etag else {}) as reply:
                    body = self._whole(url, reply, largest)
                    return body, reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
            except TransferError as error:
                if error.status == 304 and etag:
                    return None
                failures += 1
                self._retry(error, failures)

    def download(
        self,
        url: str,
        path: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        etag: str | None = None,
        largest: int | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Download a file, verify it and rename it to `path`; return its sha256.

        A part that an earlier call left beside it (`.NAME.part`) is completed. Callers must not overlap.

        Args:
            url: Where the file is.
            path: Where it goes; unchanged until the whole new file is there.
            size: Bytes that it must have.
            sha256: Its sha256, 64 hex digits.
            etag: Its etag at S3: a part is only completed from the same object, and an MD5 is verified.
            largest: Bytes that it may have.
            progress: Called with the bytes received so far, and `size`.

        Raises:
            DamagedError: The file does not have the size, sha256 or MD5 given.
            TransferError: It could not be downloaded.
        """
        if largest is not None and size is not None and size > largest:
            raise TransferError(f"{url}: {size:,} bytes are more than the {largest:,} allowed", passing=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        resumed, failures = False, 0
        while True:
            have = part.stat().st_size if part.exists() else 0
            if size is not None and have > size:
                part.unlink()
                have = 0
            resumed = resumed or have > 0
            if size is None or have < size or have == 0:
                try:
                    self._receive(url, part, have, size, etag, largest, progress or (lambda *_: None))
                except TransferError as error:
                    now = part.stat().st_size if part.exists() else 0
                    failures = 1 if now > have else failures + 1
                    self._retry(error, failures)
                    continue
            found = sha256_of(part)
            fault = _fault(part, found, size, sha256, etag)
            if fault is None:
                part.replace(path)
                _sync_folder(path.parent)
                return found
            part.unlink()
            if not resumed:
                raise DamagedError(f"{url}: {fault}: damaged, or replaced", passing=False)
            resumed = False  # the part was of another object: once more, from the first byte

    def _receive(
        self,
        url: str,
        part: Path,
        have: int,
        size: int | None,
        etag: str | None,
        limit: int | None,
        progress: Progress,
    ) -> None:
        """Download what is missing of a part. Raises TransferError; what was received is kept."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        if etag:
            headers["If-Match"] = f'"{etag}"'
        try:
            with self._opened(url, headers) as reply, part.open("ab") as file:
                if have and reply.status != 206:  # a server without ranges sends the whole file
                    file.truncate(0)
                    have = 0
                elif have != _begins(reply):
                    raise TransferError(f"{url}: the server sends another range")  # noqa: TRY301
                try:
                    while size is None or have < size:
                        chunk = self._chunk(url, reply, CHUNK if size is None else min(CHUNK, size - have))
                        if not chunk:
                            break
                        file.write(chunk)
                        have += len(chunk)
                        if limit is not None and have > limit:
                            raise TransferError(f"{url}: more than {limit:,} bytes", passing=False)
                        progress(have, size)
                finally:  # what was received before a break counts for the next try
                    file.flush()
                    os.fsync(file.fileno())
        except TransferError as error:
            if error.status in {412, 416}:  # another object by now, or one that is shorter than the part
                part.unlink(missing_ok=True)
                raise TransferError(f"{url}: it changed while it was downloaded") from None
            raise
        if size is not None and have < size:
            raise TransferError(f"{url}: {have:,} of {size:,} bytes came")

    def _retry(self, error: TransferError, failures: int) -> None:
        """Wait before another try, or raise the error if another would not help."""
        if not error.passing or failures >= self.tries:
            raise error
        wait = self.pause * 2 ** (failures - 1)
        if self.until is not None and time.monotonic() + wait >= self.until:
            raise error
        time.sleep(wait)

    def _whole(self, url: str, reply: http.client.HTTPResponse, largest: int) -> bytes:
        """Return the body of a document. Raises TransferError if it is cut off or too large."""
        body = bytearray()
        while chunk := self._chunk(url, reply, CHUNK):
            body += chunk
            if len(body) > largest:
                raise TransferError(f"{url}: larger than any document of a registry", passing=False)
        given = reply.headers.get("Content-Length")
        length = len(body) if given is None else _decimal(given.strip())
        if length is None:
            raise TransferError(f"{url}: its Content-Length is not a number of bytes")
        if len(body) < length:
            raise TransferError(f"{url}: {len(body):,} of {length:,} bytes came")
        return bytes(body)

    def _chunk(self, url: str, reply: http.client.HTTPResponse, most: int) -> bytes:
        import http.client

        if self.until is not None and time.monotonic() >= self.until:
            raise TransferError(f"{url}: out of time; what was received is kept", passing=False)
        try:
            return reply.read1(most)  # returns what has arrived; `read` would wait, and lose it in a break
        except (http.client.HTTPException, OSError, *_UNREADABLE) as error:
            raise TransferError(f"{url}: it broke off ({error or type(error).__name__})") from None

    @contextlib.contextmanager
    def _opened(self, url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        import http.client
        import urllib.error
        import urllib.request

        check_url(url)
        timeout = self.timeout
        if self.until is not None:
            timeout = max(0.1, min(timeout, self.until - time.monotonic()))
        # A compressed body would have neither the size nor the sha256 of the file.
        given = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
        request = urllib.request.Request(url, headers=given)  # noqa: S310 - see check_url
        try:
            reply = _opener(Connector(timeout, SLOWEST)).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            error.close()
            passing = error.code in {408, 429} or error.code >= 500
            raise TransferError(
                f"{url}: the server answers {error.code}", passing=passing, status=error.code
            ) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError, *_UNREADABLE) as error:
            reason = getattr(error, "reason", None) or error
            raise TransferError(f"{url}: no answer ({reason or type(reason).__name__})") from None
        with reply:
            yield reply


def _begins(reply: http.client.HTTPResponse) -> int | None:
    """Return the byte of the file at which a reply begins; None if a partial reply does not say."""
    if reply.status != 206:
        return 0
    span = (reply.headers.get("Content-Range") or "").removeprefix("bytes ")
    return _decimal(span.partition("-")[0])


def _decimal(text: str) -> int | None:
    """Return a number of bytes, written in ASCII digits and below 10**18; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _unreadable(url: str, error: Exception) -> TransferError:
    return TransferError(f"{url}: an answer cannot be read ({type(error).__name__}: {error})", passing=False)


def check_url(url: str) -> None:
    """Refuse an address that is not https, except on this machine. Raises ValueError."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, more = parts.hostname or "", parts.username or parts.password or parts.fragment
        is_plain = bool(host) and parts.port != 0 and not more
    except ValueError:  # brackets that do not close, a port that is none
        is_plain = False
    if not is_plain:
        raise ValueError(f"{url!r}: write https://HOST/PATH")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError(f"{url!r}: write https://, so that no one can change the model in transit")


def _opener(connector: Connector) -> Any:
    import urllib.request

    class Redirects(urllib.request.HTTPRedirectHandler):
        max_redirections = 5

        def redirect_request(
            self, req: Any, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
        ) -> Any:
            fp.close()  # otherwise urllib reads the redirect's body to its end, however long it is
            connector.public_only = check_redirect(req.full_url, newurl) or connector.public_only
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return connector.opener(Redirects())


def check_redirect(origin: str, target: str) -> bool:
    """Refuse a redirect away from https, or to an address that is not public. Raises TransferError.

    Returns:
        Whether it leads to another host, which must have a public address.
    """
    import socket
    from urllib.parse import urlsplit

    old, new = urlsplit(origin), urlsplit(target)
    here = _is_loopback(old.hostname or "") and _is_loopback(new.hostname or "")
    if new.scheme != "https" and not (here and old.scheme == new.scheme == "http"):
        raise TransferError(f"{origin}: it redirects to {target}, which is not https", passing=False)
    if new.username or new.password:
        raise TransferError(f"{origin}: it redirects to an address with credentials", passing=False)
    if here or old.hostname == new.hostname:
        return False
    try:
        known = socket.getaddrinfo(new.hostname, new.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        return True  # a proxy may resolve it; without a proxy there is no connection either
    if not all(is_public(str(address[0])) for *_, address in known):
        raise TransferError(f"{origin}: it redirects to {target}, a private address", passing=False)
    return True


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from the whole internet."""
    import ipaddress

    ip = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_global


class Connector:
    """Connects one request and its redirects, and ends them if the server is too slow.

    A server that is silent, or sends less than `slowest`, has `seconds` in all; the reader's own time does not count.
    Connecting, over all addresses of the host, and TLS may each take as long again.

    Args:
        seconds: See above.
        slowest: Bytes a second.
    """

    def __init__(self, seconds: float, slowest: int) -> None:
        self.seconds = seconds
        self.slowest = slowest
        self.public_only = False
        """Whether the next connection may be to a public address only, unless it is a proxy's."""
        self._left = seconds
        self._beside = MOST_BESIDE

    def opener(self, *handlers: Any) -> Any:
        """Return an opener of urllib that connects like this, and has further handlers."""
        import http.client
        import urllib.request

        def connection(kind: Any, request: Any) -> Callable[..., Any]:
            is_proxied = request.has_proxy() or request._tunnel_host  # noqa: SLF001 - the proxy's address may be private
            check = self.public_only and not is_proxied

            def made(*args: Any, **options: Any) -> Any:
                new = kind(*args, **options)
                # The lookup that judges the address is the one that is used: a second one could give another address.
                new._create_connection = lambda address, *_: self._connect(address, check=check)  # noqa: SLF001
                new.response_class = self._reply
                return new

            return made

        class Http(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(connection(http.client.HTTPConnection, req), req)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(connection(http.client.HTTPSConnection, req), req)

        return urllib.request.build_opener(Http(), Https(), *handlers)

    def _connect(self, address: tuple[str, int], *, check: bool) -> socket.socket:
        import socket

        fault = OSError(f"{address[0]} has no address")
        until = time.monotonic() + self.seconds
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            if check and not is_public(str(place[0])):
                raise OSError(f"{address[0]} has a private address")
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(max(until - time.monotonic(), 0.001))
                connection.connect(place)
                connection.settimeout(self.seconds)
            except OSError as error:
                connection.close()
                fault = error
            else:
                return connection
        raise fault

    def _reply(self, connection: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        import http.client
        import io

        connector = self

        class Paced(io.RawIOBase):
            def __init__(self, raw: io.RawIOBase) -> None:
                self.raw = raw

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int | None:
                return connector._read(connection, lambda: self.raw.readinto(buffer))

            def close(self) -> None:
                self.raw.close()
                super().close()

        class Reply(http.client.HTTPResponse):
            def read1(self, n: int = -1) -> bytes:
                # Only content earns time: headers, chunk sizes and trailers could go on without end.
                content = super().read1(n)
                connector._left = min(connector.seconds, connector._left + len(content) / connector.slowest)
                # A chunk of one byte comes with five more bytes.
                connector._beside = min(MOST_BESIDE, connector._beside + 8 * len(content))
                return content

        reply = Reply(connection, *args, **options)
        reply.fp = io.BufferedReader(Paced(reply.fp.detach()))
        return reply

    def _read(self, connection: socket.socket, read: Callable[[], int | None]) -> int | None:
        connection.settimeout(max(self._left, 0.001))
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            length = read()
            self._left -= time.monotonic() - began
            # Time alone does not stop a fast server that sends no content.
            self._beside -= length or 0
            if self._beside < 0:
                raise ConnectionAbortedError(f"it sends more than {MOST_BESIDE:,} bytes that are no content")
            if self._left > 0:
                return length
        self._left = 0
        raise TimeoutError(f"it sends less than {self.slowest:,} bytes a second")


def _is_loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fault(part: Path, found: str, size: int | None, sha256: str | None, etag: str | None) -> str | None:
    """Return how a downloaded file differs from what it should be; None if it does not."""
    length = part.stat().st_size
    if size is not None and length != size:
        return f"{length:,} bytes instead of {size:,}"
    if sha256 is not None and found != sha256:
        return f"sha256 is {found} instead of {sha256}"
    # The etag of an object that was uploaded in one part is its MD5; that of several parts has a dash.
    if sha256 is None and etag and re.fullmatch(r"[0-9a-f]{32}", etag):
        import hashlib

        if hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest() != etag:
            return f"its MD5 is not {etag}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version or of a line of versions; empty for any other text."""
    parts = version.removeprefix("v").split(".")
    fits = len(parts) <= 3 and all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts)
    return tuple(map(int, parts)) if fits else ()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _time(document: dict[str, Any], name: str) -> float:
    """Return a time of a document that others may have written; `NEVER` if it has none."""
    found = document.get(name)
    return found if isinstance(found, (int, float)) and 0 <= found < LATEST else NEVER


def _replace(path: Path, body: bytes) -> None:
    # A name of its own: threads and processes may write the same document at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once its folder is on the disk.
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(file: IO[bytes]) -> bool:
    """Lock a file if no process holds its lock; it is released when the file is closed, or the process dies.

    Raises OSError: The file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # Windows raises the latter
        return False
    return True


def main() -> None:
    """Print the path of the newest good model: `python model_client.py URL FOLDER [PIN]`."""
    if len(sys.argv) not in {3, 4}:
        sys.exit("usage: model_client.py URL FOLDER [PIN]")
    pin = sys.argv[3] if len(sys.argv) > 3 else None
    try:
        model = ModelClient(sys.argv[1], sys.argv[2], pin=pin, interval=0).get()
    except (NoModelError, ValueError) as error:
        sys.exit(str(error))
    if model.problem:
        sys.stderr.write(f"{model.problem}\n")
    sys.stdout.write(f"{model.path}\n")


if __name__ == "__main__":
    main()
