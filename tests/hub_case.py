"""The part of the Hugging Face Hub's API that a store needs, for one repository: commits onto a parent, trees, files."""

import base64
import hashlib
import json
import threading
from urllib.parse import parse_qs, unquote, urlsplit

from local_http import LocalServer

REPOSITORY = "us/boards"
WHEN = "2026-11-01T12:00:00.000Z"


def blob_id(body):
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Hub(LocalServer):
    """Commits are snapshots by name; the newest is `main`."""

    protocol = "HTTP/1.1"

    def __init__(self):
        self.commits = {"0" * 40: {".gitattributes": b"x"}}
        self.main = "0" * 40
        self.lock = threading.Lock()

    def reply(self, request):
        path = unquote(urlsplit(request.path).path)
        return self.answer(request.command, path, request.body)

    def answer(self, method, path, body):
        api = f"/api/models/{REPOSITORY}/"
        if path.startswith(f"/{REPOSITORY}/resolve/"):
            revision, _, name = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")
            files = self.commits[self.main if revision == "main" else revision]
            return (200, files[name]) if name in files else (404, {"error": "Entry not found"})
        if not path.startswith(api):
            return 404, {"error": "Repository not found"}
        act, _, rest = path.removeprefix(api).partition("/")
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
