"""Smaller borders: what is pulled, printed, masked, signed and shipped."""

import io
import json
import sys

import pytest
from clone_case import TRAINING, commit, honest_repository, offload
from registry_case import manifest_for

from gpu_offload.infra.store.errors import CorruptObjectError, StoreUrlError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.infra.store.files import write_verified
from gpu_offload.orchestrator import cli
from gpu_offload.orchestrator.backends.training_process import LONGEST_LINE, lines_of
from gpu_offload.orchestrator.github import action
from gpu_offload.orchestrator.github.runner import Runner
from gpu_offload.orchestrator.output.json_text import json_text
from gpu_offload.orchestrator.registry import download, publish
from gpu_offload.orchestrator.registry.manifest import RegistryError
from gpu_offload.orchestrator.run.accounting import read_bill

VERSION = "a" * 16


@pytest.fixture
def published(tmp_path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    store = open_store(f"file:{tmp_path / 'store'}")
    publish.publish(store, manifest_for(model, VERSION), model, note=lambda _: None)
    return store


def test_a_download_stops_at_the_promised_size(tmp_path):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield bytes(1000)

    with pytest.raises(CorruptObjectError, match="more than"):
        write_verified("x", endless(), tmp_path / "model.pt", size=3_500, sha256=None)
    assert len(taken) == 4
    assert list(tmp_path.iterdir()) == []


def rewrite(store, key, change):
    body, _ = store.read(key)
    document = json.loads(body)
    change(document)
    store.put(key, json.dumps(document).encode())


@pytest.mark.parametrize("name", ["../../escaped.pt", "/etc/passwd", ".bashrc", "model.pt/../../x", ""])
def test_a_manifest_that_names_a_path_is_refused(published, tmp_path, name):
    rewrite(published, f"models/{VERSION}/manifest.json", lambda d: d["model"].update(name=name))
    with pytest.raises(RegistryError, match="replaced"):
        download.pull(published, "stable", tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_a_manifest_of_another_version_is_refused(published, tmp_path):
    rewrite(published, f"models/{VERSION}/manifest.json", lambda d: d.update(version="b" * 16))
    with pytest.raises(RegistryError, match="replaced"):
        download.pull(published, VERSION, tmp_path / "app")


@pytest.mark.parametrize("key", ["aliases/stable.json", "index.json"])
def test_an_alias_and_an_index_that_mean_other_content_are_refused(published, tmp_path, key):
    def change(document):
        (document["versions"][0] if key == "index.json" else document)["sha256"] = "0" * 64

    rewrite(published, key, change)
    with pytest.raises(RegistryError, match="nothing was downloaded"):
        download.pull(published, "stable", tmp_path / "app")


EVIL = "q\x1b[31m\u202e\u2028\nerror: forged\r\n" + "A" * 100_000
MANIFEST = f"models/{VERSION}/manifest.json"


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (MANIFEST, lambda d: d.update(base_model=EVIL, task=EVIL, run=EVIL, fingerprint=EVIL)),
        (MANIFEST, lambda d: d["model"].update(sha256=EVIL)),
        (MANIFEST, lambda d: d["metrics"].update({EVIL: "x"})),
        ("aliases/stable.json", lambda d: d.update(version=EVIL)),
        ("aliases/stable.json", lambda d: d["history"][0].update(why=EVIL, by=EVIL, semver=EVIL)),
        ("index.json", lambda d: d["versions"][0].update(semver=EVIL, commit=EVIL)),
        ("index.json", lambda d: d["versions"][0].update(exports={EVIL: EVIL}, metrics={EVIL: EVIL})),
        ("index.json", lambda d: d.update(format=EVIL)),
    ],
)
def test_what_is_printed_of_a_forged_document_is_short_and_has_its_own_lines(
    published, tmp_path, monkeypatch, capsys, key, change
):
    monkeypatch.chdir(tmp_path)
    rewrite(published, key, change)
    commands = [("models",), ("models", "history"), ("models", "show", VERSION[:4]), ("usage",)]
    for command in [*commands, ("models", "diff", VERSION, "stable"), ("pull", "got.pt"), ("pull", "--json")]:
        with pytest.raises(SystemExit):
            cli.main([*command, "--set", f"store.url={published.url}", "--set", "dataset.path=x"])
        told = capsys.readouterr()
        printed = told.out + told.err
        assert len(printed) < 20_000
        assert not {"\x1b", "\r", "\u2028", "\u202e"} & set(printed)
        assert not [line for line in printed.splitlines() if line.startswith("error: forged")]


def test_an_error_that_quotes_much_is_short_as_text_and_as_json(monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(SystemExit):
        cli.fail(RegistryError(f"{EVIL}\n##[error]x" + "\nx" * 100_000), as_json=True)
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert len(text) < 20_000
        assert "\x1b" not in text
        assert "##[" not in text
    assert "\x1b" not in json.loads(told.out)["error"]["message"]


@pytest.mark.process
@pytest.mark.parametrize("command", [("models", "history"), ("pull", "model.pt")])
def test_what_is_printed_of_a_registry_is_no_command_to_a_runner(published, tmp_path, command, monkeypatch):
    """Whole lines of an attacker's, in a step of a workflow that looks at the store or pulls from it."""
    why = "x\n::set-output name=x::y\n \t::add-matcher::z\n##[error]y"
    rewrite(published, "aliases/stable.json", lambda d: d["history"][0].update(why=why))
    rewrite(
        published, "index.json", lambda d: d["versions"][0].update(yanked={"at": 1, "by": "", "why": why})
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = offload(tmp_path, *command, "--set", f"store.url={published.url}", "--set", "dataset.path=x")
    printed = done.stdout + done.stderr
    assert "set-output" in printed
    assert not [line for line in printed.splitlines() if line.strip().startswith("::") or "##[" in line]


def test_json_holds_no_command_to_a_runner_and_stays_what_it_is():
    value = {"why": "##[error]x", "at": float("nan")}
    assert "##[" not in json_text(value)
    assert json.loads(json_text(value)) == {"why": "##[error]x", "at": None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("usd", value) for value in (None, True, 1e308, "1e400", "NaN", "1e30", "x")),
        *(("label", value) for value in (None, True, 1e308, "\ud800", "x" * 10_000, ["x"])),
        ("note", {}),
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_an_invalid_bill_counts_as_missing(tmp_path, field, value):
    """Else one forged bill would keep `status` from listing any run."""
    store = open_store(f"file:{tmp_path}")
    line = {"label": "l", "quantity": "1", "unit": "u", "unit_price_usd": "1", "usd": "1", "note": ""}
    for lines, others in (([line | {field: value}], []), ([], [line | {field: value}])):
        store.put("runs/a-1/cost.json", json.dumps({"lines": lines, "alternatives": others}).encode())
        assert read_bill(store, "a-1") is None
    store.put("runs/a-1/cost.json", json.dumps({"lines": [line], "alternatives": [line]}).encode())
    assert read_bill(store, "a-1").total == 1


@pytest.mark.parametrize("endpoint", ["http://store.example.org", "http://192.0.2.1:9000"])
def test_a_bucket_is_spoken_to_over_https_or_on_this_machine(endpoint):
    with pytest.raises(StoreUrlError, match="https"):
        open_store("s3://bucket", endpoint_url=endpoint)
    open_store("s3://bucket", endpoint_url="http://127.0.0.1:9000")


def test_an_unsigned_store_sends_no_credentials(cloud):
    store = open_store("s3://bucket", endpoint_url=cloud.url, unsigned=True)
    with pytest.raises(Exception, match=r"bucket|allowed|public|no such|denied"):
        store.read("models/x/manifest.json")
    assert cloud.calls
    assert not [call for call in cloud.calls if "Authorization" in call.headers]


def test_an_endless_line_fills_no_memory():
    pieces = list(lines_of(io.StringIO("x" * (3 * LONGEST_LINE) + "\nend\n")))
    assert max(map(len, pieces)) == LONGEST_LINE
    assert pieces[-1] == "end\n"


def test_the_stores_own_keys_are_masked():
    masks = list(Runner({"STORE_SECRET_ACCESS_KEY": "s3cr3t", "STORE_SESSION_TOKEN": "t0ken"}).masks())
    assert masks == ["::add-mask::s3cr3t", "::add-mask::t0ken"]


def test_a_traceback_is_printed_while_commands_are_off(monkeypatch, capsys):
    def broken(_environment):
        raise ZeroDivisionError("\n::add-mask::a\n::set-output name=x::y")

    monkeypatch.setattr(action.WorkflowInputs, "of", broken)
    monkeypatch.setenv("GPU_OFFLOAD_INPUT_COMMAND", "plan")
    assert action.main() == 1
    told = capsys.readouterr().out
    token = told[told.index("::stop-commands::") :].split("::")[2].splitlines()[0]
    off = told[told.index("::stop-commands::") : told.index(f"::{token}::")]
    assert "ZeroDivisionError" in off
    assert "Traceback" not in told.replace(off, "", 1)


@pytest.mark.process
@pytest.mark.parametrize("what", ["model", "code"])
def test_a_link_out_of_the_repository_is_neither_hashed_nor_shipped(tmp_path, what):
    repository = honest_repository(tmp_path / "repository")
    secret = tmp_path / "secret.py"
    secret.write_text(TRAINING)
    configuration = repository / "offload.toml"
    if what == "code":
        (repository / "mine.py").unlink()
        (repository / "mine.py").symlink_to(secret)
    else:
        (repository / "own.yaml").symlink_to(secret)
        configuration.write_text(
            configuration.read_text().replace("[training]", '[training]\nmodel = "own.yaml"')
        )
    commit(repository, "A shortcut")
    done = offload(repository, "plan", "--no-calibrate")
    assert done.returncode == 1, sys.executable
    assert "leads out of" in done.stderr
