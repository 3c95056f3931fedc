"""The two ed25519 key pairs of a run, ours and the host's, kept in memory."""

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import paramiko

ALGORITHM = "ssh-ed25519"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An ed25519 public key: `blob` is what SSH sends, RFC 8709 section 4."""

    blob: bytes

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read an OpenSSH public line (`ssh-ed25519 AAAA... comment`). Raises ValueError."""
        words = line.split()
        if len(words) < 2 or words[0] != ALGORITHM:
            raise ValueError(f"not an {ALGORITHM} public key: {line[:40]!r}")
        # Without `validate` Python skips what is no base64, and a damaged key would be another one.
        return cls(base64.b64decode(words[1], validate=True))

    def __str__(self) -> str:
        return f"{ALGORITHM} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key, kept out of `repr` and of every file, and its public half."""

    private: str = field(repr=False)
    """OpenSSH's PEM form, unencrypted."""
    public: PublicKey

    @classmethod
    def generate(cls) -> Self:
        """Make a fresh pair."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        line = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return cls(pem.decode(), PublicKey.parse(line.decode()))


class HostKey(KeyPair):
    """The host's identity: the private half goes into the user data, the public half is the key that we accept."""


class ClientKey(KeyPair):
    """Our own identity on the host."""

    def paramiko(self) -> "paramiko.Ed25519Key":
        """Return the key as paramiko signs with it."""
        import paramiko

        return paramiko.Ed25519Key(file_obj=io.StringIO(self.private))
