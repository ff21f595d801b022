"""Certificates for tests: an authority of our own and whatever it signs, made by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates:
    """An authority in a folder; ``ca_file`` is its certificate. Skips the test where there is no openssl."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command is not there to make certificates with")
        self.folder = folder
        self.ca_file = str(folder / "ca.pem")
        subject = ("-subj", "/CN=Test CA", "-days", "2")
        self._openssl("req", "-x509", *_NEW_KEY, *subject, "-keyout", "ca.key", "-out", "ca.pem")

    def issue(self, name: str, names: str) -> tuple[Path, Path]:
        """A signed certificate for ``names`` (such as ``IP:127.0.0.1``) and its key: NAME.pem and NAME.key."""
        self._openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", *signed_by, "-extfile", f"{name}.ext", "-out", f"{name}.pem"
        )
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def server_context(self, name: str, names: str) -> ssl.SSLContext:
        """The TLS context of a server with a certificate for ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, names))
        return context

    def client_context(self, name: str | None = None) -> ssl.SSLContext:
        """The TLS context of a client that trusts the authority, with a certificate of its own if it has a name."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if name is not None:
            context.load_cert_chain(*self.issue(name, f"DNS:{name}"))
        return context

    def lock(self, key: Path, locked: Path) -> None:
        """A copy of a key that asks for a password."""
        self._openssl("ec", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked))

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=20)
