"""What stands in deploy/ starts this service: the settings are read, the unit and the container name real commands."""

import importlib.util
import os
import ssl
import subprocess
import sys
import threading
import time
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from service.cluster import deployment
from service.fake import FakeRoom
from service.jobs import Desk
from service.serve import bound, server_of, url_of
from service.settings import Settings, load

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def test_the_example_settings_are_read_and_ask_for_keys() -> None:
    settings = load(DEPLOY / "service.toml")
    assert settings.host == "0.0.0.0"
    assert settings.log_format == "json"
    assert settings.tls_cert


def test_the_unit_and_the_container_start_serve_with_options_it_has() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "dopaint.service")
    start = unit["Service"]["ExecStart"].split()
    container = (DEPLOY / "Containerfile").read_text()
    assert start[0].endswith("/dopaint")
    assert start[1] == "serve"
    options = {word for word in (*start, *container.split("ENTRYPOINT")[1].replace('"', " ").split()) if "--" in word}
    source = (ROOT / "service" / "cli.py").read_text().split("def serve(")[1].split("def demo(")[0]
    for option in options:
        assert f"    {option.strip('-,]').replace('-', '_')}: Annotated" in source, option
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert "USER dopaint" in container


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="the certificate is made with cryptography")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    import ipaddress

    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, private


def test_it_speaks_tls_with_the_given_files(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    settings = Settings(port=0, data=str(tmp_path / "data"), engine="fake", tls_cert=str(cert), tls_key=str(key))
    server = server_of(settings, Desk(tmp_path / "data", FakeRoom))
    with bound(settings) as made:
        thread = threading.Thread(target=lambda: server.run(sockets=[made]))
        thread.start()
        trusted = ssl.create_default_context(cafile=str(cert))
        try:
            with httpx.Client(base_url=url_of(settings, made), verify=trusted, trust_env=False, timeout=30) as client:
                for _ in range(400):
                    try:
                        answer = client.get("/v1/health/live")
                        break
                    except httpx.TransportError:
                        time.sleep(0.05)
                assert answer.json() == {"status": "live"}
                assert client.get("/v1/version").json()["auth"] == "off"
        finally:
            server.should_exit = True
            thread.join()


def fake_desk(settings: Settings) -> Desk:
    return Desk(Path(settings.data), FakeRoom)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_serve_answers_as_the_service_does(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'dopaint[cluster]'")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import httpx, ray, time
from ray import serve
from service.settings import Settings
from service.cluster import deployment
from tests.test_service_deploy import fake_desk
there = {{"env_vars": {{"PYTHONPATH": {path!r}}}}}
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=there)
serve.start(http_options={{"host": "127.0.0.1", "port": 8741}})
serve.run(deployment(Settings(data={str(tmp_path / "data")!r}, engine="fake", model="fake"), fake_desk))
with httpx.Client(base_url="http://127.0.0.1:8741", trust_env=False, timeout=90) as client:
    for _ in range(600):
        if client.get("/v1/health/ready").status_code == 200: break
        time.sleep(0.1)
    answer = client.post("/v1/predictions?wait=60", json={{"smiles": "CCCCO", "draws": 2}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["molecules"][0]["predictions"]["moa"]["ranking"][0]["label"] == "alpha"
    assert client.get("/v1/nothing").headers["content-type"] == "application/problem+json"
serve.shutdown(); ray.shutdown()
print("answered")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=580, cwd=ROOT)
    if "No module named" in done.stderr and "ray" not in done.stderr.split("No module named")[-1][:8]:
        pytest.skip(f"Ray is here without the packages of Ray Serve: {done.stderr.strip().splitlines()[-1]}")
    assert "answered" in done.stdout, done.stderr[-3000:]


def test_without_ray_the_cluster_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"dopaint\[cluster\]"):
        deployment(Settings(data=str(tmp_path)), fake_desk)
