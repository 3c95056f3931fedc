"""How an environment is protected, as GitHub's public API tells it."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gpu_offload.infra.github.protection import Protection, protection_of

ENVIRONMENT = "/repos/us/it/environments/gpu"
REVIEWERS = {"type": "required_reviewers", "reviewers": [{"type": "User"}, {"type": "Team"}]}
BRANCHES = {"protected_branches": False, "custom_branch_policies": True}

pytestmark = pytest.mark.simulator


@contextmanager
def github(answers):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = answers.get(self.path)
            body = json.dumps(found or {"message": "Not Found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield {"GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"protection_rules": [REVIEWERS], "deployment_branch_policy": BRANCHES}, Protection(True, 2, True)),
        ({"protection_rules": [{"type": "wait_timer"}]}, Protection(True, 0, False)),
        ({"protection_rules": None, "deployment_branch_policy": None}, Protection(True, 0, False)),
    ],
)
def test_reviewers_and_branches_are_read(found, wanted):
    with github({ENVIRONMENT: found}) as variables:
        assert protection_of("us/it", "gpu", variables) == wanted


def test_a_public_repository_without_the_environment_is_told_from_one_that_nobody_may_see():
    with github({"/repos/us/it": {"private": False}}) as variables:
        assert protection_of("us/it", "gpu", variables) == Protection(exists=False)
        assert protection_of("us/other", "gpu", variables) is None
    assert protection_of("us/it", "gpu", {"GITHUB_API_URL": "http://127.0.0.1:9"}) is None
