"""The versions of a model as an Atom feed (RFC 4287): what became stable, or was withdrawn, and why."""

from xml.etree import ElementTree as ET

from gpu_offload.orchestrator.output.units import utc
from gpu_offload.orchestrator.registry.manifest import Move
from gpu_offload.orchestrator.report.markup import without_controls
from gpu_offload.orchestrator.site.content import ModelPage
from gpu_offload.orchestrator.site.page import FEED, PAGE

NAMESPACE = "http://www.w3.org/2005/Atom"
ENTRIES = 50
TITLES = {
    "publish": "is stable",
    "promote": "was promoted",
    "yank": "is stable again",
    "rollback": "is stable again",
}


def feed_xml(site: ModelPage) -> bytes:
    """Render the moves of `stable`, newest first; every text is escaped."""
    moves = list(site.stable.moves) if site.stable else []
    page, own = (f"{site.home}/{name}" if site.home else None for name in (PAGE, FEED))
    feed = ET.Element("feed", {"xmlns": NAMESPACE})
    _add(feed, "title", site.name)
    _add(feed, "id", own or f"urn:gpu-offload:{site.name}")
    # Required by RFC 4287, also of a feed without entries.
    _add(feed, "updated", _time(moves[-1].at if moves else 0.0))
    _add(ET.SubElement(feed, "author"), "name", site.name)
    if own:
        ET.SubElement(feed, "link", {"rel": "self", "href": own})
    if page:
        ET.SubElement(feed, "link", {"href": page})
    news = [(n, m) for n, m in enumerate(moves) if n == 0 or not _stays(moves[n - 1], m)]
    for position, move in reversed(news[-ENTRIES:]):
        _entry(feed, site, position, move, page)
    text: bytes = ET.tostring(feed, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _stays(before: Move, move: Move) -> bool:
    """Whether a rollback found `stable` where it should be: a training that was reverted had not published yet."""
    return move.cause == "rollback" and move.version == before.version


def _entry(feed: ET.Element, site: ModelPage, position: int, move: Move, page: str | None) -> None:
    entry = ET.SubElement(feed, "entry")
    _add(entry, "title", f"{move.semver or move.version} {TITLES[move.cause]}")
    # Never another one for the same move, which readers would show as new.
    _add(entry, "id", f"urn:gpu-offload:{site.name}:stable:{position}:{move.version}")
    _add(entry, "updated", _time(move.at))
    _add(entry, "summary", move.why or move.cause)
    if page:
        ET.SubElement(entry, "link", {"href": page})


def _add(parent: ET.Element, name: str, text: str) -> None:
    # XML 1.0 has no control characters, U+FFFE and U+FFFF.
    ET.SubElement(parent, name).text = without_controls(text).replace("\ufffe", " ").replace("\uffff", " ")


def _time(at: float) -> str:
    return utc(at, "%Y-%m-%dT%H:%M:%SZ", otherwise="1970-01-01T00:00:00Z")
