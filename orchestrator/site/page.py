"""The page of a model as one HTML file that loads nothing: no script, no style sheet, no picture from elsewhere."""

from gpu_offload.orchestrator.output.metrics import class_table, curve_name, metric_table, named
from gpu_offload.orchestrator.output.units import human_bytes, human_cost, human_duration, human_number
from gpu_offload.orchestrator.registry.card import facts
from gpu_offload.orchestrator.registry.listing import when
from gpu_offload.orchestrator.registry.manifest import IndexEntry, Manifest, model_key
from gpu_offload.orchestrator.report.markup import (
    document,
    html_table,
    picture_html,
    safe,
    tiles_html,
    without_controls,
)
from gpu_offload.orchestrator.report.svg import curves_svg
from gpu_offload.orchestrator.site.content import ModelPage

FEED = "feed.xml"
PAGE = "index.html"

MAIN_METRICS = 2
SHOWN_VERSIONS = 200
SHOWN_MOVES = 50

SHOWN_FACTS = (
    *("task", "model", "classes", "images", "epochs", "image size", "started from", "settings", "licence"),
    *("commit", "data", "training key"),
)


def site_html(site: ModelPage) -> str:
    """Render a model's page; every text from the registry is escaped."""
    sections = (
        ("Versions", html_table(version_rows(site))),
        ("Get it", _download(site)),
        ("Quality", _quality(site)),
        ("Predictions", picture_html(site.picture)),
        ("What stable meant", html_table(move_rows(site))),
        ("Card", html_table(card_rows(site.manifest)) if site.manifest else ""),
    )
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    if not site.versions:
        body = "<p>No version is published yet.</p>"
    feed = f'<link rel="alternate" type="application/atom+xml" title="{safe(site.name)}" href="{FEED}">'
    foot = f'<p><a href="{FEED}">Feed of its versions</a></p>'
    return document(site.name, f"{tiles_html(tiles(site))}{body}{foot}", head=feed)


def tiles(site: ModelPage) -> list[tuple[str, str, str]]:
    """Return the facts that readers look for first: version, quality, cost."""
    entry = site.shown
    if entry is None or site.manifest is None:
        return []
    is_stable = site.stable is not None and site.stable.version == entry.version
    quality = list(named(entry.metrics).items())[:MAIN_METRICS]
    cost = human_cost(site.manifest.cost_usd, site.manifest.where)
    return [
        ("stable" if is_stable else "newest, not stable", number(entry), f"of {when(entry.created_at)} UTC"),
        *((name, human_number(value), "") for name, value in quality),
        ("cost", cost, f"{human_duration(site.manifest.seconds.actual)} on {place(site.manifest.where)}"),
    ]


def number(entry: IndexEntry) -> str:
    """Return the number of a version, or its digits where it has none."""
    return entry.semver or entry.version


def place(where: str) -> str:
    """Return in words where a version was trained."""
    return "a CPU" if where == "cpu" else where


def version_rows(site: ModelPage) -> list[tuple[str, ...]]:
    """Return a row for each version, newest first."""
    metrics = [named(entry.metrics) for entry in site.versions]
    names = list(dict.fromkeys(name for one in metrics for name in list(one)[:MAIN_METRICS]))
    rows: list[tuple[str, ...]] = [
        ("version", "state", "published (UTC)", *names, "size", "cost", "where", "commit")
    ]
    for entry, one in list(zip(site.versions, metrics, strict=True))[:SHOWN_VERSIONS]:
        cost = "" if entry.cost_usd is None else human_cost(entry.cost_usd, entry.where or "")
        rows.append(
            (
                number(entry),
                site.state(entry),
                when(entry.created_at),
                *(human_number(one[name]) if name in one else "" for name in names),
                human_bytes(entry.size),
                cost,
                place(entry.where or ""),
                (entry.commit or "")[:9],
            )
        )
    return rows


def move_rows(site: ModelPage) -> list[tuple[str, ...]]:
    """Return the versions that `stable` pointed at and since when, newest first."""
    moves = reversed(site.stable.moves) if site.stable else ()
    rows = [(when(m.at), m.semver or m.version, m.cause, m.by, m.why) for m in moves]
    return [("since (UTC)", "version", "by", "who", "why"), *rows[:SHOWN_MOVES]]


def card_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """Return the facts about a version's training."""
    known = facts(manifest, None)
    known |= {"settings": known.get("hyperparameters", ""), "licence": manifest.license or ""}
    return [("", ""), *((name, known[name]) for name in SHOWN_FACTS if known.get(name))]


def _download(site: ModelPage) -> str:
    if site.manifest is None:
        return ""
    version = site.manifest.version
    rows: list[tuple[str, ...]] = [("file", "size", "sha256")]
    rows += [(file.name, human_bytes(file.size), file.sha256) for file in site.manifest.files]
    parts = [html_table(rows)]
    links = []
    for file in site.manifest.files:
        url = site.address(model_key(version, file.name))
        # The address is from a document: `javascript:` would be a link, too.
        if url is not None and url.startswith("https://"):
            links.append(f'<a href="{safe(url)}">{safe(file.name)}</a>')
    if links:
        parts.append(f"<p>Directly: {', '.join(links)}</p>")
    if site.base is not None:
        code = (
            "from model_client import ModelClient\n\n"
            f'model = ModelClient("{without_controls(site.base)}", "models").get()\n'
        )
        parts.append(
            f"<p>From a shell: <code>offload pull model.pt --from {safe(site.base)}</code></p>"
            f"<p>In an application, which then stays up to date:</p><pre>{safe(code)}</pre>"
        )
    return "".join(parts)


def _quality(site: ModelPage) -> str:
    if site.manifest is None:
        return ""
    curves = {
        curve_name(without_controls(name)): values
        for name, values in site.curves.items()
        if not name.startswith("lr/") and "loss" not in name
    }
    return (
        html_table(metric_table(named(site.manifest.metrics)))
        + html_table(class_table(site.manifest.per_class, 3))
        + _history(site)
        + curves_svg("By epoch of its training", curves)
    )


def _history(site: ModelPage) -> str:
    """Draw the main metric over the versions that were good enough, oldest first."""
    entries = [e for e in reversed(site.versions) if e.yanked is None and e.metrics]
    names = list(dict.fromkeys(name for e in entries for name in list(named(e.metrics))[:1]))
    curves = {name: [named(e.metrics)[name] for e in entries if name in named(e.metrics)] for name in names}
    shown = {name: values for name, values in curves.items() if len(values) > 1}
    return curves_svg("Over the versions", shown, axis="version, oldest first")
