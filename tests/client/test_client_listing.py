"""Models found by the listing of a bucket, and a download by itself."""

import hashlib
import os

import pytest
from client_case import NO_NUMBERS, body_of, client

from gpu_offload.client.model_client import NoModelError, TransferError, Web

pytestmark = pytest.mark.simulator


def listing(server, objects, page=2):
    """Serve a bucket's listing, `page` objects at a time; objects are (key, date, body)."""
    for key, _, body in objects:
        server.files[f"/{key}"] = body

    def serve(handler, request):
        if "list-type" not in request.query:
            return False
        prefix = request.query.get("prefix", [""])[0]
        found = [o for o in objects if o[0].startswith(prefix)]
        start = int(request.query.get("continuation-token", ["0"])[0])
        shown = found[start : start + page]
        more = start + page < len(found)
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{date}</LastModified>"
            f"<ETag>&quot;{hashlib.md5(server.files[f'/{key}']).hexdigest()}&quot;</ETag><Size>{len(body)}</Size></Contents>"
            for key, date, body in shown
        )
        token = f"<NextContinuationToken>{start + page}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{rows}{token}</ListBucketResult>"
        )
        handler.answer(200, text.encode())
        return True

    server.faults.append(serve)


def test_the_newest_of_a_listing_is_taken_from_whatever_page_it_is_on(server, folder):
    objects = [(f"v{n}.pt", f"2026-01-{n:02}T00:00:00.000Z", b"%d" % n * 999) for n in (3, 9, 1, 4, 5)]
    objects.append(("notes.txt", "2027-01-01T00:00:00.000Z", b"no model"))
    listing(server, objects)
    model = client(server, folder, listing=True).get()
    assert body_of(model) == b"9" * 999
    server.requests.clear()
    assert client(server, folder, listing=True).get().updated is False
    assert [r.path for r in server.requests] == ["/", "/", "/"]


def test_an_object_of_a_listing_that_changes_in_mid_download_is_not_mixed(server, folder):
    first, second = os.urandom(50_000), os.urandom(50_000)
    objects = [("model.pt", "2026-01-01T00:00:00.000Z", first)]
    listing(server, objects)
    server.cut("/model.pt", 10_000)

    def change(handler, request):
        if request.headers.get("Range"):
            server.files["/model.pt"] = second
        return False

    server.faults.append(change)
    with pytest.raises(NoModelError):
        client(server, folder, listing=True).get()
    assert body_of(client(server, folder, listing=True).get()) == second


@pytest.mark.parametrize(
    "text", [b"<html>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", b"<ListBucketResult/>", b""]
)
def test_what_is_no_listing_is_an_error(server, folder, text):
    server.fault("/", lambda handler, _: handler.answer(200, text), times=9)
    with pytest.raises(NoModelError):
        client(server, folder, listing=True).get()


@pytest.mark.parametrize("size", NO_NUMBERS)
def test_a_size_in_a_listing_that_is_no_number_keeps_the_model_of_before(server, folder, size):
    listing(server, [("a.pt", "2026-01-01T00:00:00.000Z", b"a" * 99)])
    client(server, folder, listing=True).get()
    text = f"<ListBucketResult><Contents><Key>b.pt</Key><Size>{size}</Size></Contents></ListBucketResult>"
    server.faults.clear()
    server.fault("/", lambda handler, _: handler.answer(200, text.encode()))
    model = client(server, folder, listing=True, tries=1).get()
    assert body_of(model) == b"a" * 99
    assert "size" in model.problem


def test_a_download_by_itself_says_what_is_wrong(server, tmp_path):
    server.files["/x"] = b"abc"
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(TransferError, match="sha256"):
        Web().download(f"{server.url}/x", target, size=3, sha256="0" * 64)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert Web().download(f"{server.url}/x", target) == hashlib.sha256(b"abc").hexdigest()
