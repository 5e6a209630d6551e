"""`outstation enrol`, from the key to a connection that its certificate opens, and over a renewal."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from agent.cli import cli
from agent.testing.broker import Broker
from agent.testing.outstation import Outstation


def enrol(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["enrol", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


class Authority:
    """Signs requests, as whoever runs the broker does."""

    def __init__(self, home: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.home = home
        self.key = key
        self.certificate = certificate

    @classmethod
    def load(cls, ca_file: Path, home: Path) -> Authority:
        key = load_pem_private_key(ca_file.with_suffix(".key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(home, key, x509.load_pem_x509_certificate(ca_file.read_bytes()))

    def sign(self, request: Path, *, days: float = 60, cn: str = "test") -> Path:
        csr = x509.load_pem_x509_csr(request.read_bytes())
        assert csr.is_signature_valid
        assert csr.subject.rfc4514_string() == "CN=test"
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)]))
            .issuer_name(self.certificate.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=90))
            .not_valid_after(now + timedelta(days=days))
            .sign(self.key, SHA256())
        )
        path = self.home / "signed.pem"
        path.write_bytes(made.public_bytes(Encoding.PEM))
        return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "outstation.toml"
    path.write_text('[agent]\nid = "test"\n')
    return path


def test_a_board_is_enrolled_and_its_certificate_renewed(tmp_path: Path, config: Path) -> None:
    tls = tmp_path / "tls"
    with Broker(client_certificates=True) as broker:
        assert broker.certificates is not None
        authority = Authority.load(broker.certificates.ca_file, tmp_path)
        status, said = enrol("request", "-c", config, "-d", tls)
        assert status == 0, said
        key = (tls / "request.key").read_bytes()
        assert enrol("request", "-c", config, "-d", tls)[0] == 0
        assert (tls / "request.key").read_bytes() == key, "it is asked for once more, not anew"
        signed = authority.sign(tls / "request.csr", days=20)
        status, said = enrol("install", signed, "-c", config, "-d", tls, "--ca", broker.certificates.ca_file)
        assert status == 0, said
        assert f'cert_file = "{tls}/client.pem"' in said
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tls, *tls.iterdir())}
        assert modes == {"tls": 0o700, "client.pem": 0o600}

        mqtt = {"cert_file": str(tls / "client.pem")}
        outstation = Outstation({"device": [{"name": "host", "driver": "host"}]}, broker)
        outstation.config["mqtt"] = {k: v for k, v in outstation.config["mqtt"].items() if k != "key_file"} | mqtt
        with outstation:
            outstation.wait_log(r"WARNING certificate\.expires .*days_left=(19|20)")
            assert outstation.wait_status(lambda s: s["certificate"])["certificate"]["days_left"] in (19, 20)
            # The same key again, as a renewal mostly is: no request is needed.
            (tmp_path / "csr").write_bytes(
                subprocess.run(
                    ["openssl", "req", "-new", "-key", tls / "client.pem", "-subj", "/CN=test"],
                    capture_output=True,
                    check=True,
                    timeout=30,
                ).stdout
            )
            renewed = authority.sign(tmp_path / "csr", days=60)
            assert enrol("install", renewed, "-c", config, "-d", tls)[0] == 0
            outstation.wait_log(r"certificate\.renewed .*used=")
            outstation.wait_status(lambda s: s["certificate"]["days_left"] == 59)
            broker.restart()
            outstation.wait_status(lambda s: s["link"]["connects"] == 2 and s["link"]["state"] == "up", 20)
            assert outstation.terminate() == 0


def test_what_does_not_belong_together_is_not_stored(tmp_path: Path, config: Path) -> None:
    tls = tmp_path / "tls"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    now = datetime.now(UTC)
    ca = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    authority = Authority(tmp_path, key, ca)
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    common = ("-c", config, "-d", tls)
    assert enrol("request", *common)[0] == 0

    def refused(source: Path, *more: object) -> str:
        status, said = enrol("install", source, *common, *more)
        assert status == 1
        assert not (tls / "client.pem").exists()
        return said

    assert "common name other; this agent is test" in refused(authority.sign(tls / "request.csr", cn="other"))
    assert "is the clock right?" in refused(authority.sign(tls / "request.csr", days=-1))
    assert "has no certificate" in refused(config)
    assert "cannot be read" in refused(tmp_path / "absent")
    signed = authority.sign(tls / "request.csr")
    foreign = Authority(tmp_path, ec.generate_private_key(ec.SECP256R1()), ca)
    assert enrol("install", foreign.sign(tls / "request.csr"), *common, "--ca", tmp_path / "ca.pem")[0] == 1
    signed = authority.sign(tls / "request.csr")
    other = tmp_path / "chain.pem"
    other.write_bytes(signed.read_bytes() * 2)
    assert "the chain is broken" in refused(other)
    assert enrol("request", *common, "--new-key")[0] == 0
    assert "for none of the keys" in refused(signed)


def test_a_token_is_taken_once(tmp_path: Path, config: Path) -> None:
    tls, token = tmp_path / "tls", tmp_path / "token.toml"
    text = 'agent = "test"\nusername = "test"\npassword = "geheim"\n'
    common = (token, "-c", config, "-d", tls)
    for wrong, why in (
        (text.replace('"test"\nu', '"other"\nu'), "is for the agent other"),
        (text + "x = 1\n", "has x;"),
        ("password = 1", "has no agent"),
        ('password = "geheim', "no TOML"),
    ):
        token.write_text(wrong)
        token.chmod(0o600)
        status, said = enrol("token", *common)
        assert (status, why in said, "geheim" in said) == (1, True, False), said
    token.write_text(text)
    token.chmod(0o644)
    assert "have a new one made" in enrol("token", *common)[1]
    token.chmod(0o600)
    status, said = enrol("token", *common)
    assert (status, f'password_file = "{tls}/password"' in said) == (0, True), said
    assert not token.exists()
    assert (tls / "password").read_text() == "geheim\n"
    assert (tls / "password").stat().st_mode & 0o777 == 0o600
