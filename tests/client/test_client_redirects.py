"""A redirect leads neither away from https nor into a private network."""

import contextlib
import datetime as dt
import socket

import pytest
from client_case import body_of, client, kept
from model_server import ModelServer

from gpu_offload.client.model_client import ModelClient, NoModelError, TransferError, check_redirect

pytestmark = pytest.mark.simulator


@pytest.mark.parametrize(
    "target",
    [
        "http://example.org/stable.json",
        "https://10.0.0.1/stable.json",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://user:word@example.org/x",
        "file:///etc/passwd",
        "ftp://example.org/x",
    ],
)
def test_a_redirect_away_from_https_or_to_a_private_address_is_refused(server, folder, old, target):
    server.status("stable.json", 302, Location=target)
    model = client(server, folder).get()
    assert kept(model, old)


def test_a_redirect_on_this_machine_is_followed_and_a_circle_ended(server, folder):
    body = server.publish("aaaa")
    server.files["/elsewhere"] = body
    server.status("model.pt", 302, times=1, Location="/elsewhere")
    assert body_of(client(server, folder).get()) == body
    server.status("stable.json", 302, Location="/aliases/stable.json")
    assert client(server, folder).get().problem


def test_the_body_of_a_redirect_is_not_read(server, folder):
    """It could be endless, and urllib would keep all of it in memory."""
    body = server.publish("aaaa")
    server.files["/elsewhere"] = body
    sent = []

    def endless(handler, _request):
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        with contextlib.suppress(OSError):
            while len(sent) < 1_000:
                handler.wfile.write(bytes(1 << 16))
                sent.append(1)

    server.fault("model.pt", endless)
    assert body_of(client(server, folder).get()) == body
    assert len(sent) < 1_000


def test_a_public_address_does_not_redirect_into_a_private_network(monkeypatch):
    names = {
        "cdn.example.org": "93.184.216.34",
        "inside.example.org": "192.168.1.1",
        "metadata": "169.254.169.254",
    }
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **__: [(2, 1, 6, "", (names[host], 443))])
    assert check_redirect("https://models.example.org/a", "https://cdn.example.org/a")
    assert not check_redirect("https://inside.example.org/a", "https://inside.example.org/b")
    for target in ("https://inside.example.org/a", "https://metadata/a", "http://cdn.example.org/a"):
        with pytest.raises(TransferError):
            check_redirect("https://models.example.org/a", target)


def test_a_name_that_is_public_when_it_is_judged_and_private_when_it_is_asked_is_not_asked(
    tmp_path, folder, monkeypatch
):
    """What decides is the address of the connection, whatever the name meant before."""
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    resolve, looks = socket.getaddrinfo, []

    def rebound(host, port, *args, **options):
        if host != "localhost":
            return resolve(host, port, *args, **options)
        looks.append(port)
        return resolve("93.184.216.34" if len(looks) == 1 else "127.0.0.1", port, *args, **options)

    with ModelServer(context) as server, ModelServer(context) as private:
        server.publish("aaaa")
        private.files = dict(server.files)
        monkeypatch.setattr("socket.getaddrinfo", rebound)
        monkeypatch.setattr("gpu_offload.client.model_client._is_loopback", lambda _: False)
        target = private.url.replace("127.0.0.1", "localhost")
        server.status("model.pt", 302, Location=f"{target}/models/aaaa/model.pt")
        with pytest.raises(NoModelError, match="private address"):
            client(server, folder, tries=1).get()
        assert len(looks) == 2
        assert private.requests == []


def test_https_is_verified_and_never_left(tmp_path, folder, monkeypatch):
    context, authority = certificate(tmp_path)
    with ModelServer(context) as secure, ModelServer() as plain:
        body = secure.publish("aaaa")
        plain.files = dict(secure.files)
        with pytest.raises(NoModelError, match=r"(?i)certificate"):
            client(secure, folder).get()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert body_of(client(secure, folder).get()) == body
        secure.status("stable.json", 302, Location=f"{plain.url}/aliases/stable.json")
        assert "not https" in client(secure, folder).get().problem
        assert plain.requests == []


def certificate(tmp_path):
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    import ipaddress

    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "ftp://example.org",
        "file:///x",
        "example.org",
        "https://",
        "https://u:p@example.org",
        "https://example.org:99999",
        "https://example.org:0",
        "https://[::1",
        "https://example.org/models?signature=1",
    ],
)
def test_an_address_that_is_not_https_is_refused_at_once(url, tmp_path):
    with pytest.raises(ValueError, match="https://"):
        ModelClient(url, tmp_path)
