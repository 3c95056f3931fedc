"""Any sequence of calls leaves a store as it leaves a dictionary."""

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gpu_offload.infra.store.errors import ObjectChangedError, ObjectExistsError, ObjectMissingError
from gpu_offload.infra.store.factory import open_store

KEYS = st.sampled_from(["a", "b/c", "b/d", "b-", "z/y/x"])
BODIES = st.sampled_from([b"", b"0", b"1", b"2" * 1000])


class Against(RuleBasedStateMachine):
    """A store beside the dictionary that it should equal. Etags of small objects tell content apart."""

    def __init__(self, store):
        super().__init__()
        self.store = store
        self.model = {}
        self.etags = {}  # etag -> content

    def wrote(self, key, body, etag):
        assert self.etags.setdefault(etag, body) == body
        self.model[key] = body

    @rule(key=KEYS, body=BODIES)
    def put(self, key, body):
        self.wrote(key, body, self.store.put(key, body))

    @rule(key=KEYS, body=BODIES)
    def create(self, key, body):
        if self.model.get(key, body) == body:
            self.wrote(key, body, self.store.create(key, body))
        else:
            with pytest.raises(ObjectExistsError):
                self.store.create(key, body)

    @rule(key=KEYS, body=BODIES, choice=st.data())
    def replace(self, key, body, choice):
        etag = choice.draw(st.sampled_from(sorted(self.etags) or ["none"]))
        if key in self.model and (self.etags.get(etag) == self.model[key] or self.model[key] == body):
            self.wrote(key, body, self.store.replace(key, body, etag))
        else:
            with pytest.raises(ObjectChangedError):
                self.store.replace(key, body, etag)

    @rule(key=KEYS)
    def delete(self, key):
        self.store.delete(key)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def read(self, key):
        if key in self.model:
            body, etag = self.store.read(key)
            assert body == self.model[key] == self.etags[etag]
        else:
            assert self.store.stat(key) is None
            with pytest.raises(ObjectMissingError):
                self.store.read(key)

    @rule(prefix=st.sampled_from(["", "b", "b/", "z/y", "none"]))
    def list(self, prefix):
        expected = sorted(key for key in self.model if key.startswith(prefix))
        assert [info.key for info in self.store.list(prefix)] == expected

    @invariant()
    def sizes_are_right(self):
        for key in list(self.model)[:1]:
            assert self.store.stat(key).size == len(self.model[key])


@pytest.mark.simulator
@pytest.mark.parametrize("kind", ["folder", "bucket", "memory"])
def test_any_sequence_of_calls_leaves_a_store_as_it_leaves_a_dictionary(kind, tmp_path, request):
    numbers = itertools.count()
    if kind == "folder":

        def machine():
            return Against(open_store(f"file:{next(numbers)}", base=tmp_path))
    elif kind == "memory":

        def machine():
            return Against(open_store(f"fsspec+memory://{tmp_path.name}/{next(numbers)}"))
    else:
        bucket = request.getfixturevalue("bucket")
        first = open_store(f"s3://{bucket}/first")
        client = first._bucket.reader

        def machine():
            store = open_store(f"s3://{bucket}/{next(numbers)}")
            store._bucket._client = client  # a client of its own for each would take most of the time
            return Against(store)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60 if kind == "folder" else 12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    if kind == "bucket":
        client.close()
