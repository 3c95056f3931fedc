"""A release of the GitHub of our own, and runners that keep models in it."""

from github_case import TOKEN
from registry_case import manifest_for

from gpu_offload.infra.github.release import GitHubRelease
from gpu_offload.infra.github.release_store import ReleaseStore
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.github.cached_store import KeptFolder
from gpu_offload.orchestrator.github.packed import pack_for_keeping
from gpu_offload.orchestrator.github.release import keep
from gpu_offload.orchestrator.github.store import TAG
from gpu_offload.orchestrator.registry import publish


def release(github, token=TOKEN):
    return GitHubRelease(github.url, github.repository, token, TAG)


def release_store(github, token=TOKEN):
    return ReleaseStore(github.address, release(github, token))


class Runner:
    """A machine that is new each time: an empty folder over the release."""

    def __init__(self, github, folder):
        self.github, self.folder = github, folder
        self.store = KeptFolder(folder / "store", open_store(github.address))

    def publish(self, model, version, at=100.0):
        manifest = manifest_for(model, version, created_at=at)
        return publish.publish(self.store, manifest, model, note=lambda _: None)

    def pack(self, version):
        return pack_for_keeping(self.store, version * 4, self.folder / "packed")

    def keep(self, version=None, **more):
        """Keep what was packed of a version; by default of the only one there."""
        packed = self.folder / "packed"
        names = [path.name for path in packed.glob("*")]
        version = version or next((n.split("-")[1][:16] for n in names if n.startswith("models-")), A)
        return keep(release_store(self.github), packed, lambda _: None, version * 4, **more)


A, B, C = "a" * 16, "b" * 16, "c" * 16
