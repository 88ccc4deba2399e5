"""A lease's own throwaway key: made before its machine is asked for, removed when the machine is gone."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from provisioners.files import sync_folder, write_for_good
from recipes.errors import NoMachine

_PRIVATE = "id_ed25519"
_PUBLIC = "id_ed25519.pub"
_KNOWN_HOSTS = "known_hosts"


@dataclass(frozen=True)
class LeaseKeys:
    """The folder of one lease: its key pair, and the host keys that were pinned under it."""

    folder: Path
    public_key: str
    """One line, as in authorized_keys."""

    @classmethod
    def create(cls, home: Path, lease_name: str) -> LeaseKeys:
        """Make the key pair, on disk for good when this returns. A lease that has one keeps it."""
        folder = _folder(home, lease_name)
        if (folder / _PUBLIC).is_file():
            return cls.load(home, lease_name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        # The public half is written last: where it is, the pair is whole.
        write_for_good(folder / _PRIVATE, private)
        write_for_good(folder / _PUBLIC, f"{public} {lease_name}\n")
        sync_folder(folder.parent)
        return cls(folder, f"{public} {lease_name}")

    @classmethod
    def load(cls, home: Path, lease_name: str) -> LeaseKeys:
        """The pair of a lease. Raises NoMachine if it is not here, as on another computer than the one that rented."""
        folder = _folder(home, lease_name)
        try:
            return cls(folder, (folder / _PUBLIC).read_text().strip())
        except OSError as error:
            raise NoMachine(
                f"{folder} holds no key for {lease_name}: it was rented from another computer, or is gone already",
                advice="go on where it was rented; recipe reap ends it from anywhere",
            ) from error

    @property
    def private(self) -> Path:
        return self.folder / _PRIVATE

    @property
    def known_hosts(self) -> Path:
        return self.folder / _KNOWN_HOSTS

    def engine_key(self) -> str:
        """The key of the lease's engine, made from the private key: who holds that knows it, and no file has to."""
        loaded = load_ssh_private_key(self.private.read_bytes(), password=None)
        assert isinstance(loaded, Ed25519PrivateKey)
        secret = loaded.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return hmac.new(secret, b"engine", hashlib.sha256).hexdigest()

    def remove(self) -> None:
        """Forget the lease; nothing happens if that was done before."""
        for name in (_PUBLIC, _PRIVATE, _KNOWN_HOSTS):
            (self.folder / name).unlink(missing_ok=True)
        for left in self.folder.glob("*"):
            left.unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()


def _folder(home: Path, lease_name: str) -> Path:
    if Path(lease_name).name != lease_name:
        raise ValueError(f"{lease_name!r} is not the name of a lease")
    return home / "leases" / lease_name
