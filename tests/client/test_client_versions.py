"""Which version an application gets: yanks, pins, the lowest version, rollouts."""

import hashlib
import json

import pytest
from client_case import body_of, client
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.client.model_client import ModelClient, NoModelError, choose, is_older

pytestmark = pytest.mark.simulator


def test_a_yanked_version_is_left_for_the_one_before(server, folder):
    good = server.publish("aaaa", semver="1.0.0")
    server.publish("bbbb", semver="1.1.0")
    client(server, folder).get()
    server.document = server.document | {"yanked": {"bbbb": "sees keys everywhere"}}
    assert body_of(client(server, folder).get()) == good


def test_a_yanked_version_is_not_used_even_if_no_other_can_be_had(server, folder):
    server.publish("aaaa")
    server.publish("bbbb")
    client(server, folder).get()
    server.document = server.document | {"yanked": {"bbbb": "bad"}}
    server.status("aaaa/model.pt", 503)
    with pytest.raises(NoModelError):
        client(server, folder, tries=1).get()


def test_a_yanked_version_does_not_come_back_offline(server, folder):
    server.publish("aaaa")
    client(server, folder, keep=3).get()
    server.publish("bbbb")
    client(server, folder, keep=3).get()
    server.publish("cccc", yanked={"bbbb": "bad"})
    client(server, folder, keep=3).get()
    (folder / "cccc.pt").unlink()
    server.status("", 503)
    assert client(server, folder, tries=1).get().version == "aaaa"


@pytest.mark.parametrize(
    ("pin", "expected"),
    [("1", "bbbb"), ("1.0", "aaaa"), ("1.0.0", "aaaa"), ("v1.1.0", "bbbb"), ("2", "cccc"), ("aaaa", "aaaa")],
)
def test_a_pin_stays_on_a_version_or_in_a_line(server, folder, pin, expected):
    for version, semver in (("aaaa", "1.0.0"), ("bbbb", "1.1.0"), ("cccc", "2.0.0")):
        server.publish(version, semver=semver)
    assert client(server, folder, pin=pin).get().version == expected


def test_an_exact_pin_holds_although_the_version_is_yanked_and_a_line_does_not(server, folder):
    server.publish("aaaa", semver="1.0.0")
    server.publish("bbbb", semver="1.1.0", yanked={"bbbb": "bad"})
    assert client(server, folder, pin="1.1.0").get().version == "bbbb"
    assert client(server, folder, pin="1").get().version == "aaaa"


def test_a_candidate_is_pinned_by_the_index(server, folder):
    body = server.publish("cccc")
    facts = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
    server.files["/index.json"] = json.dumps(
        {"versions": [{"version": "cccc", "semver": "1.2.0", **facts}]}
    ).encode()
    del server.files["/aliases/stable.json"]
    assert client(server, folder, pin="1.2.0").get().version == "cccc"
    server.requests.clear()
    assert client(server, folder, pin="1.2.0").get().version == "cccc"
    assert server.paths() == ["/aliases/stable.json"]


def test_an_unknown_pin_is_an_error_that_names_it(server, folder):
    server.publish("aaaa", semver="1.0.0")
    server.files["/index.json"] = b'{"versions": []}'
    with pytest.raises(NoModelError, match=r"pinned to 9\.9\.9"):
        client(server, folder, pin="9.9.9").get()


def test_the_lowest_version_that_an_application_works_with_is_held(server, folder):
    server.publish("aaaa", semver="1.0.0")
    newer = server.publish("bbbb", semver="1.1.0")
    server.publish("aaaa", semver="1.0.0")  # rolled back
    assert body_of(client(server, folder, minimum="1.1.0").get()) == newer
    with pytest.raises(NoModelError, match=r"at least 2\.0\.0"):
        client(server, folder, minimum="2.0.0").get()


def test_the_publisher_can_end_old_versions(server, folder):
    server.publish("aaaa", semver="1.0.0")
    client(server, folder).get()
    server.publish("bbbb", semver="1.1.0", minimum="1.1.0")
    server.status("bbbb/model.pt", 503)
    with pytest.raises(NoModelError):
        client(server, folder, tries=1).get()


def test_a_rollout_reaches_its_share_of_installations_and_never_takes_it_back(server, folder):
    server.publish("aaaa")
    server.publish("bbbb", rollout=0.3)

    def reached(document):
        share_of = lambda name: lambda version: _share(name, version)  # noqa: E731
        return {n for n in range(1000) if choose(document, share_of=share_of(n)).version == "bbbb"}

    def _share(name, version):
        return ModelClient(server.url, folder, installation=str(name))._share_of(version)

    third = reached(server.document)
    assert 250 < len(third) < 350
    wider = server.document | {"rollout": 0.6}
    wider["history"][-1]["rollout"] = 0.6
    assert third < reached(wider)
    assert len(reached(wider | {"rollout": 1.0})) == 1000


@pytest.mark.parametrize(
    ("pin", "expected"), [(None, "aaaa"), ("1", "aaaa"), ("1.1", None), ("1.1.0", "bbbb")]
)
def test_a_rollout_to_none_reaches_only_who_pinned_exactly_it(server, folder, pin, expected):
    server.publish("aaaa", semver="1.0.0")
    server.publish("bbbb", semver="1.1.0", rollout=0.0)
    found = choose(server.document, pin, share_of=client(server, folder)._share_of)
    assert (found.version if found else None) == expected


def test_an_installation_is_the_same_at_every_start(server, folder):
    server.publish("aaaa")
    server.publish("bbbb", rollout=0.5)
    first = client(server, folder).get().version
    assert {client(server, folder).get().version for _ in range(5)} == {first}
    (folder / "installation").write_bytes(b"\xff")  # damaged: it gets another name, and no error
    named = client(server, folder).get().version
    assert {client(server, folder).get().version for _ in range(5)} == {named}


VERSIONS = st.sampled_from(["aaaa", "bbbb", "cccc", "dddd"])
ENTRY = st.fixed_dictionaries(
    {"version": VERSIONS, "sha256": st.just("0" * 64), "size": st.just(1)},
    optional={
        "semver": st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]),
        "rollout": st.floats(0, 1),
    },
)


@given(
    st.lists(ENTRY, min_size=1, max_size=6),
    st.sets(VERSIONS),
    st.sampled_from([None, "1", "1.1", "2.0.0", "aaaa"]),
    st.sampled_from([None, "1.1.0"]),
    st.floats(0, 1, exclude_max=True),
)
def test_what_is_chosen_is_always_allowed(history, yanked, pin, minimum, share):
    document = {**history[-1], "history": history, "yanked": dict.fromkeys(yanked, "why")}
    chosen = choose(document, pin, minimum, lambda _: share)
    if chosen is None:
        return
    exact = pin in {chosen.version, chosen.semver}
    assert exact or chosen.version not in yanked
    assert exact or minimum is None or (chosen.semver or "") >= minimum
    assert exact or pin is None or (chosen.semver or "").startswith(pin)
    assert exact or chosen.share == 1.0 or share < chosen.share


def moved(server, *moves, serial, **more):
    """Let `stable` have meant versions at times; return the document."""
    file = {
        name: {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
        for name, body in ((n, server.files.get(f"/models/{n}/model.pt", b"")) for n, _ in moves)
    }
    history = [{"version": name, "at": at, **file[name]} for name, at in moves]
    document = {**history[-1], "moved_at": moves[-1][1], "history": history, "serial": serial, **more}
    server.document = document
    return document


def test_a_cache_that_answers_an_earlier_document_takes_no_version_back(server, folder):
    for name in "ab":
        server.publish(name)
    early = moved(server, ("a", 1.0), serial=1)
    moved(server, ("a", 1.0), ("b", 2.0), serial=2)
    assert client(server, folder).get().version == "b"
    server.document = early
    model = client(server, folder).get()
    assert model.version == "b"
    assert "earlier" in model.problem
    server.document = {k: early[k] for k in ("version", "sha256", "moved_at")}  # without a history: of before
    assert client(server, folder).get().version == "b"


def test_a_rollback_and_a_registry_begun_anew_are_followed(server, folder):
    for name in "ab":
        server.publish(name)
    moved(server, ("a", 1.0), ("b", 2.0), serial=2)
    assert client(server, folder).get().version == "b"
    moved(server, ("a", 1.0), ("b", 2.0), ("a", 3.0), serial=3)
    model = client(server, folder).get()
    assert (model.version, model.problem) == ("a", None)
    moved(server, ("b", 9.0), serial=1)
    assert client(server, folder).get().version == "b"


def test_a_yank_is_not_forgotten_because_a_cache_does_not_know_it_yet_and_its_end_is_believed(server, folder):
    for name in "ab":
        server.publish(name)
    early = moved(server, ("b", 1.0), ("a", 2.0), serial=2)
    moved(server, ("b", 1.0), ("a", 2.0), serial=3, yanked={"a": "bad"})
    assert client(server, folder).get().version == "b"
    server.document = early
    assert client(server, folder).get().version == "b"
    moved(server, ("b", 1.0), ("a", 2.0), serial=4)
    assert client(server, folder).get().version == "a"


def test_an_alias_that_is_missing_for_a_while_makes_no_pin_forget_a_yank(server, folder):
    server.publish("aaaa", semver="1.0.0")
    client(server, folder, pin="1").get()
    server.publish("bbbb", semver="1.1.0", yanked={"aaaa": "bad"})
    assert client(server, folder, pin="1", keep=3).get().version == "bbbb"
    server.status("stable.json", 404)
    assert client(server, folder, pin="1", tries=1).get().version == "bbbb"
    (folder / "bbbb.pt").unlink()
    server.status("model.pt", 503)
    with pytest.raises(NoModelError):
        client(server, folder, pin="1", tries=1).get()


def test_what_a_killed_process_left_half_written_is_removed(server, folder):
    server.publish("aaaa")
    folder.mkdir()
    for name in (".state.json.123-456.new", ".bbbb.pt.part"):
        (folder / name).write_bytes(b"half")
    client(server, folder).get()
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "aaaa.model.json",
        "aaaa.pt",
        "state.json",
    ]


@given(st.data())
def test_only_earlier_states_of_the_same_history_are_older(data):
    """Every state that an alias goes through is older than each later one, and none is older than an earlier one."""
    states, history, yanked = [], [], {}
    for serial, act in enumerate(data.draw(st.lists(st.sampled_from("abcy"), min_size=2, max_size=6)), 1):
        if act == "y":
            yanked = {} if yanked else {"a": "bad"}
        else:
            history = [*history, {"version": act, "at": float(len(history) // 2), "rollout": 1.0}]
        if history:
            states.append({**history[-1], "history": history, "yanked": yanked, "serial": serial})
    for n, earlier in enumerate(states):
        for later in states[n + 1 :]:
            assert is_older(earlier, later)
            assert not is_older(later, earlier)
