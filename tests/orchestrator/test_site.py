"""The page of a model and its feed: everything on them is from the registry, escaped, and from nowhere else."""

import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from registry_case import manifest_for

from gpu_offload.orchestrator.cli import offload
from gpu_offload.orchestrator.registry import promote, publish
from gpu_offload.orchestrator.registry.manifest import model_key
from gpu_offload.orchestrator.report.picture import PNG
from gpu_offload.orchestrator.site.content import read_site
from gpu_offload.orchestrator.site.feed import NAMESPACE, feed_xml
from gpu_offload.orchestrator.site.page import site_html

HOSTILE = "<script>alert(1)</script>\x00\u202e\"'&]]>"
ATOM = {"a": NAMESPACE}
MEASURE = """<script>
const frame = document.querySelector("iframe"), told = document.querySelector("pre");
frame.onload = () => {
  const inside = frame.contentDocument, style = frame.contentWindow.getComputedStyle(inside.body);
  told.textContent = JSON.stringify({
    width: inside.documentElement.scrollWidth, scripts: inside.scripts.length, text: inside.body.innerText,
    ground: style.backgroundColor, ink: style.color,
  });
};
</script>"""
"""Measures a page in a frame, whose own policy lets no script run."""


def publish_now(store, tmp_path, version, at, **facts):
    model = tmp_path / "model.pt"
    model.write_bytes(version.encode() * 100)
    manifest = manifest_for(model, version, at).model_copy(update=facts)
    publish.publish(store, manifest, model, note=lambda _: None)
    return manifest


@pytest.fixture
def three(store, tmp_path):
    """A registry with three versions: the second is stable again, because the third was withdrawn."""
    publish_now(store, tmp_path, "aaaa", 1_772_000_000.0, cost_usd=0.0, where="ray", repository="us/boards")
    per_class = {"circle": {"map50": 0.61}, HOSTILE: {"map50": 0.42}}
    second = {"metrics": {"map50": 0.71}, "repository": "us/boards", "per_class": per_class}
    publish_now(store, tmp_path, "bbbb", 1_772_100_000.0, cost_usd=0.04, where="g4dn.xlarge", **second)
    publish_now(store, tmp_path, "cccc", 1_772_200_000.0, metrics={"map50": 0.2}, repository="us/boards")
    promote.rollback(store, why=f"worse at night {HOSTILE}")
    store.put(model_key("bbbb", "predictions.png"), PNG + b"picture")
    return store


def shown(store, **more):
    return read_site(
        store,
        address=lambda key: f"https://models.example.org/{key}",
        base="https://models.example.org",
        project="boards",
        **more,
    )


class Seen(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_shows_versions_stable_quality_cost_and_how_to_download(three):
    page = site_html(shown(three))
    text = " ".join(Seen(page).words)
    for part in (
        "us/boards",
        "1.0.1",
        "stable",
        "yanked: worse at night",
        "0.710",
        "$0.04",
        "g4dn.xlarge",
        "not counted",
        "circle",
    ):
        assert part in text
    assert "offload pull model.pt --from https://models.example.org" in text
    assert 'ModelClient("https://models.example.org", "models")' in text
    assert 'href="https://models.example.org/models/bbbb/model.pt"' in page
    assert "data:image/png;base64," in page
    assert "Over the versions" in page


def test_the_page_loads_and_runs_nothing_whatever_the_registry_says(three):
    page = site_html(shown(three))
    seen = Seen(page)
    assert not {"script", "iframe", "object", "embed", "style-src"} & {tag for tag, _ in seen.tags}
    for tag, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not attributes.get("src", "data:").startswith(("http", "//"))
        assert tag != "link" or attributes["rel"] == "alternate"
    assert "url(" not in page
    assert not re.search(r"[\x00\u202e]", page)
    assert "default-src 'none'" in page


def test_an_address_that_is_no_web_address_is_no_link(three):
    site = read_site(three, address=lambda _: "javascript:alert(1)", base=None, project="boards")
    assert "javascript:" not in site_html(site)


def test_a_private_repositorys_page_shows_no_picture(three):
    assert "data:image" not in site_html(shown(three, is_private=True))


def test_the_feed_has_each_move_of_stable_newest_first(three):
    stable = publish.alias_of(three, "stable").version
    promote.take_back(three, stable, (), why="what still trained was reverted", commit="c" * 40)  # no news
    feed = ET.fromstring(feed_xml(shown(three)))
    titles = [entry.findtext("a:title", None, ATOM) for entry in feed.findall("a:entry", ATOM)]
    assert titles == ["1.0.1 is stable again", "1.0.2 is stable", "1.0.1 is stable", "1.0.0 is stable"]
    ids = [entry.findtext("a:id", None, ATOM) for entry in feed.findall("a:entry", ATOM)]
    assert len(set(ids)) == len(ids)
    assert "<script>" in feed.find("a:entry", ATOM).findtext("a:summary", None, ATOM), "escaped once"
    for needed in ("title", "id", "updated", "author/a:name"):
        assert feed.findtext(f"a:{needed}", None, ATOM)


@pytest.mark.parametrize("at", [math.nan, math.inf, -1.0, -1e300, 1e300, 1e12])
def test_a_time_that_is_no_date_does_not_stop_the_site(three, at):
    site = shown(three)
    moves = tuple(move.model_copy(update={"at": at}) for move in site.stable.moves)
    entries = tuple(entry.model_copy(update={"created_at": at}) for entry in site.versions)
    odd = replace(
        site, stable=site.stable.model_copy(update={"moved_at": at, "history": moves}), versions=entries
    )
    assert "unknown" in site_html(odd)
    feed = ET.fromstring(feed_xml(odd))
    assert feed.findtext("a:updated", None, ATOM) == "1970-01-01T00:00:00Z"


def test_a_registry_without_versions_has_a_page_too(store):
    assert "No version is published yet" in site_html(shown(store))
    assert ET.fromstring(feed_xml(shown(store))).findall("a:entry", ATOM) == []


@pytest.mark.parametrize("folder", [[], ["public"]])
def test_the_command_writes_both_files(three, tmp_path, folder):
    (tmp_path / "raw").mkdir()
    (tmp_path / "offload.toml").write_text('[dataset]\npath = "raw"\n[store]\nurl = "file:store"\n')
    target = [str(tmp_path / name) for name in folder]
    for _ in range(2):
        result = CliRunner().invoke(offload, ["site", *target, "-C", str(tmp_path)], standalone_mode=False)
        assert result.exception is None
    written = tmp_path / "public" if folder else tmp_path / "store" / "site"
    assert "us/boards" in (written / "index.html").read_text()
    assert ET.fromstring((written / "feed.xml").read_bytes()).findall("a:entry", ATOM)


def test_a_model_of_no_repository_is_named_by_its_project_and_has_one_state(store, tmp_path):
    publish_now(store, tmp_path, "aaaa", 1_772_000_000.0, metrics={"map50": 0.0, "map50_95": 0.0})
    promote.promote(store, "aaaa", why="good enough")
    site = shown(store)
    assert site.name == "boards"
    assert site.state(site.versions[0]) == "stable"
    page = site_html(site)
    assert "on a CPU" in page
    assert 'class="rows"' in page, "a phone lists the columns of a version below each other"


@pytest.mark.process
@pytest.mark.parametrize("dark", [False, True])
def test_a_real_browser_shows_the_page_on_a_phone_by_day_and_night(three, tmp_path, dark):
    """Nothing is wider than 390 px, text stands out from its ground, and what the registry says is no markup."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    page = html.escape(site_html(shown(three)), quote=True)
    (tmp_path / "frame.html").write_text(
        f'<iframe width="390" height="800" srcdoc="{page}"></iframe><pre></pre>{MEASURE}', encoding="utf-8"
    )
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--blink-settings=preferredColorScheme={int(not dark)}",
            "--dump-dom", (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    seen = json.loads(html.unescape(re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)[1]))
    assert seen["width"] <= 390
    assert seen["scripts"] == 0
    assert "bbbb" in seen["text"]
    ground, ink = (sum(map(int, re.findall(r"\d+", seen[name])[:3])) / 3 for name in ("ground", "ink"))
    assert (ground < ink) == dark
    assert abs(ground - ink) > 100
