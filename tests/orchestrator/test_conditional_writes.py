"""Stores that ignore conditional writes are found before a run begins."""

from types import SimpleNamespace

import pytest

from gpu_offload.infra.store.errors import StoreDeniedError, StoreError
from gpu_offload.infra.store.folder import FolderStore
from gpu_offload.infra.store.probe import probe_store
from gpu_offload.orchestrator.lifecycle.train import Training
from gpu_offload.orchestrator.registry.stores import check_conditional_writes
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.orchestrator.settings.sections import DatasetSettings, StoreSettings


class Careless(FolderStore):
    """A server that takes conditional writes for plain ones, as some that speak the S3 API do."""

    def create(self, key, body):
        return self.put(key, body)

    def replace(self, key, body, etag):
        return self.put(key, body)


def test_a_store_that_ignores_conditions_is_found_out(tmp_path):
    good, bad = FolderStore(tmp_path / "good"), Careless(tmp_path / "bad")
    assert probe_store(good).faults == ()
    faults = " ".join(probe_store(bad).faults)
    assert "If-None-Match" in faults
    assert "If-Match" in faults
    for store in (good, bad):
        assert list(store.list("")) == []


def test_a_server_outside_aws_that_ignores_conditions_is_refused_before_a_run_begins(tmp_path):
    good, bad = FolderStore(tmp_path / "good"), Careless(tmp_path / "bad")
    data = DatasetSettings(path="data")
    inside = Settings(dataset=data, store=StoreSettings(url="s3://bucket"))
    store = StoreSettings(url="s3://bucket", endpoint_url="https://store.example")
    outside = Settings(dataset=data, store=store)
    planned = SimpleNamespace(version="a" * 16, settings=outside)
    with pytest.raises(StoreError, match="If-None-Match"):
        Training(planned, bad, None, None).run()
    check_conditional_writes(outside, good)
    check_conditional_writes(inside, bad)  # AWS itself is not asked
    for store in (good, bad):
        assert list(store.list("")) == []


def test_the_test_object_goes_even_where_the_test_fails(tmp_path):
    class Failing(FolderStore):
        def replace(self, key, body, etag):
            raise StoreDeniedError("no")

    with pytest.raises(StoreDeniedError):
        probe_store(Failing(tmp_path))
    assert list(FolderStore(tmp_path).list("")) == []
