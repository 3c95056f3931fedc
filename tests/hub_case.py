"""The part of the Hugging Face Hub's API that a store needs, for one repository: commits onto a parent, trees, files."""

import base64
import hashlib
import json
import threading
from urllib.parse import parse_qs, unquote, urlsplit

from local_http import LocalServer

REPOSITORY = "us/boards"
EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
    "resource": REPOSITORY,
}
"""What a job sends with its identity token: https://huggingface.co/docs/hub/trusted-publishers"""

WHEN = "2026-11-01T12:00:00.000Z"


def blob_id(body):
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Hub(LocalServer):
    """Commits are snapshots by name; the newest is `main`.

    With `publisher`, the claims of the workflow that it trusts, a commit needs a token that was exchanged for an identity.
    The runner's endpoint for identities is here, too, at `/identity`; `claims` are those of the job.
    """

    protocol = "HTTP/1.1"

    def __init__(self, publisher=None, expires_in=3600):
        self.publisher, self.claims, self.expires_in = publisher, dict(publisher or {}), expires_in
        self.tokens = []
        self.commits = {"0" * 40: {".gitattributes": b"x"}}
        self.main = "0" * 40
        self.lock = threading.Lock()

    def reply(self, request):
        parts, given = urlsplit(request.path), request.headers.get("Authorization") or ""
        if parts.path == "/identity":
            return self.identity(parse_qs(parts.query), given)
        if parts.path == "/oauth/token":
            return self.exchange(json.loads(request.body))
        return self.answer(unquote(parts.path), request.body, given.removeprefix("Bearer "))

    def identity(self, query, given):
        if given != "Bearer the-runners-own" or "api-version" not in query:
            return 401, {}
        claims = {**self.claims, "aud": query["audience"][0]}
        return 200, {"value": base64.b64encode(json.dumps(claims).encode()).decode()}

    def exchange(self, wanted):
        claims = json.loads(base64.b64decode(wanted.pop("subject_token")))
        if wanted != EXCHANGE or claims != {**self.publisher, "aud": self.url}:
            return 400, {"error": "invalid_grant"}
        self.tokens.append(f"hf_jwt_{len(self.tokens)}")
        return 200, {"access_token": self.tokens[-1], "token_type": "bearer", "expires_in": self.expires_in}

    def answer(self, path, body, token):
        api = f"/api/models/{REPOSITORY}/"
        if path.startswith(f"/{REPOSITORY}/resolve/"):
            revision, _, name = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")
            files = self.commits[self.main if revision == "main" else revision]
            return (200, files[name]) if name in files else (404, {"error": "Entry not found"})
        if not path.startswith(api):
            return 404, {"error": "Repository not found"}
        act, _, rest = path.removeprefix(api).partition("/")
        if self.publisher and act == "commit" and token not in self.tokens:
            return 403, {"error": "Forbidden"}
        with self.lock:
            files = self.commits[self.main if rest.partition("/")[0] == "main" else rest.partition("/")[0]]
            match act:
                case "revision":
                    return 200, {"id": REPOSITORY, "sha": self.main, "lastModified": WHEN, "siblings": []}
                case "tree":
                    return 200, [self.described(name, files[name]) for name in sorted(files)]
                case "paths-info":
                    wanted = parse_qs(body.decode())["paths"]
                    return 200, [self.described(name, files[name]) for name in wanted if name in files]
                case "preupload":
                    modes = {"uploadMode": "regular", "shouldIgnore": False}
                    return 200, {"files": [{"path": f["path"], **modes} for f in json.loads(body)["files"]]}
                case "commit":
                    return self.commit(body)
        return 404, {"error": path}

    @staticmethod
    def described(name, body):
        return {"type": "file", "path": name, "size": len(body), "oid": blob_id(body)}

    def commit(self, body):
        lines = [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent not in {None, self.main}:
            return 412, {"error": "A commit has happened since."}
        files = dict(self.commits[self.main])
        for line in lines[1:]:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "deletedFile":
                files.pop(line["value"]["path"], None)
        self.main = hashlib.sha1(f"{self.main}{len(self.commits)}".encode()).hexdigest()
        self.commits[self.main] = files
        address = f"{self.url}/{REPOSITORY}/commit/{self.main}"
        return 200, {"success": True, "commitUrl": address, "commitOid": self.main, "hookOutput": ""}
