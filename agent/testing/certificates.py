"""Throw-away certificates for tests of TLS, made by the ``openssl`` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# RFC 5280, sections 4.2.1.1 to 4.2.1.9: what ssl.VERIFY_X509_STRICT, the default since Python 3.13, insists on.
_CA = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
_LEAF = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificates:
    """A CA of its own, a server's certificate for localhost and 127.0.0.1, and a client's."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    client_cert_file: Path
    client_key_file: Path

    @classmethod
    def make(cls, directory: Path, *, days: int = 1) -> Self:
        """Make them in directory; a few ten milliseconds. Raises OSError or CalledProcessError if openssl fails."""
        ca, ca_key = directory / "ca.pem", directory / "ca.key"
        _openssl(
            "req", "-x509", *_CURVE, *_CA, "-days", str(days), "-subj", "/CN=Test CA", "-keyout", ca_key, "-out", ca
        )  # fmt: skip
        pairs = {
            "server": ("/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
            "client": ("/CN=client", "extendedKeyUsage=clientAuth\n"),
        }
        for name, (subject, extensions) in pairs.items():
            request, extra = directory / f"{name}.csr", directory / f"{name}.ext"
            extra.write_text(_LEAF + extensions)
            _openssl("req", *_CURVE, "-subj", subject, "-keyout", directory / f"{name}.key", "-out", request)
            _openssl(
                "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
                "-days", str(days), "-extfile", extra, "-out", directory / f"{name}.pem",
            )  # fmt: skip
        return cls(
            ca, directory / "server.pem", directory / "server.key", directory / "client.pem", directory / "client.key"
        )


def _openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30)
