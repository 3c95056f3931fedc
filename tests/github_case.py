"""A GitHub of our own: as much of releases as keeping models needs, refusing what GitHub refuses."""

import json
import threading
from urllib.parse import parse_qs, urlsplit

from local_http import LocalServer

TOKEN = "the-jobs-own-token"


class GitHub(LocalServer):
    """Releases of `us/boards`, by the API for who has the token, by web address for everybody."""

    repository = "us/boards"

    def __init__(self):
        self.release = None
        self.assets = {}
        self.broken = None
        """A pair of method and part of a path whose next request is answered with 502, or with a third element."""
        self._number = 100
        self._lock = threading.Lock()

    @property
    def address(self):
        """Where the released files are."""
        return f"{self.url}/{self.repository}/releases/download/offload-models"

    def reply(self, request):
        with self._lock:
            return self.answer(request.command, request.path, request.headers, request.body)

    def files(self):
        return {asset["name"]: asset["body"] for asset in self.assets.values()}

    def answer(self, method, target, headers, body):
        parts = urlsplit(target)
        path = parts.path
        if self.broken and method == self.broken[0] and self.broken[1] in path:
            answer, self.broken = (*self.broken, (502, {"message": "bad gateway"}))[2], None
            return answer
        if path.startswith(f"/{self.repository}/releases/download/"):
            name = path.rpartition("/")[2]
            found = self.files().get(name)
            return (404, b"") if found is None else (200, found)
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        api = f"/repos/{self.repository}/releases"
        if (method, path) == ("GET", f"{api}/tags/offload-models"):
            return (200, self.release) if self.release else (404, {"message": "Not Found"})
        if (method, path) == ("POST", api):
            given = json.loads(body)
            assert given["prerelease"] is True
            assert given["make_latest"] == "false"
            if self.release:
                return 422, {"errors": [{"code": "already_exists"}]}
            self.release = {"id": 7, "upload_url": f"{self.url}/uploads/7/assets{{?name,label}}"}
            return 201, self.release
        if (method, path) == ("GET", f"{api}/7/assets"):
            page = int(parse_qs(parts.query)["page"][0])
            listed = [self.told(number) for number in self.assets][100 * (page - 1) : 100 * page]
            return 200, listed
        if (method, path) == ("POST", "/uploads/7/assets"):
            name = parse_qs(parts.query)["name"][0]
            if name in self.files():
                return 422, {"errors": [{"code": "already_exists"}]}
            self._number += 1
            self.assets[self._number] = {"name": name, "body": body}
            return 201, self.told(self._number)
        number = int(path.rpartition("/")[2])
        if number not in self.assets:
            return 404, {"message": "Not Found"}
        if method == "GET":
            return 200, self.assets[number]["body"]
        if method == "PATCH":
            name = json.loads(body)["name"]
            if name in self.files() and name != self.assets[number]["name"]:
                return 422, {"errors": [{"code": "already_exists"}]}
            self.assets[number]["name"] = name
            return 200, self.told(number)
        assert method == "DELETE"
        del self.assets[number]
        return 204, b""

    def told(self, number):
        asset = self.assets[number]
        known = {"state": "uploaded", "created_at": "2026-01-01T00:00:00Z"} | asset.get("more", {})
        return {"id": number, "name": asset["name"], "size": len(asset["body"])} | known
