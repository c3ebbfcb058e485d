"""Who may ask the service, for what and how often, and from where."""

import datetime
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from service_cases import CHAMPION, image_bytes, new_key, run_command

from medvision.serving.api_keys import api_keys_path, list_keys, revoke_key
from medvision.serving.opening import is_loopback

PREDICTIONS = ("/api/v1/predict", "/api/v1/predict/advanced", "/api/v1/predict/batch")
FIGURES = ("/metrics", "/api/v1/usage")
INFO = "/api/v1/model_info"
COMMAND = ("serve", CHAMPION, "--engine", "torch")


def statuses(service, key):
    """Return the status of each endpoint that asks for a key."""
    client = service.client(key)
    sent = [
        client.post(path, files={"images" if path.endswith("batch") else "image": ("a.png", image_bytes())})
        for path in PREDICTIONS
    ]
    return [answer.status_code for answer in (*sent, *(client.get(path) for path in (*FIGURES, INFO)))]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("predict", [200, 200, 200, 403, 403, 200]),
        ("read", [403, 403, 403, 200, 200, 200]),
        ("admin", [200, 200, 200, 200, 200, 200]),
    ],
)
def test_roles(service, role, expected):
    """A key may what its role says and no more; it works at once, without a restart."""
    assert statuses(service, new_key(service.project, role)) == expected


@pytest.mark.parametrize("key", [None, "x", "mv_0123456789abcdef_" + "a" * 43, "mv_é", "x y"])
def test_nobody_without_a_key(service, key):
    """Without a key, or with one that is none, nothing is answered but 401 and how to ask."""
    client = service.client(None)
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
    for path in (*FIGURES, INFO):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert service.predict(client=client, headers=headers).status_code == 401


def test_a_secret_of_another_key(service):
    """The id of one key with the secret of another lets nobody in."""
    first, second = new_key(service.project), new_key(service.project)
    mixed = first[:20] + second[20:]
    assert mixed != first and service.client(mixed).get(INFO).status_code == 401


def test_other_places_for_a_key(service):
    """A key counts in the header Authorization as Bearer alone: not in the address, a cookie or another scheme."""
    client = service.client(None)
    assert client.get(INFO, params={"api_key": service.key, "key": service.key}).status_code == 401
    assert client.get(INFO, headers={"Cookie": f"key={service.key}"}).status_code == 401
    assert client.get(INFO, headers={"X-API-Key": service.key}).status_code == 401
    assert client.get(INFO, headers={"Authorization": f"Basic {service.key}"}).status_code == 401


def test_a_revoked_key(service):
    """A key that is revoked is refused within a second."""
    key = new_key(service.project)
    client = service.client(key)
    assert client.get(INFO).status_code == 200
    revoke_key(api_keys_path(service.project.state), key.split("_")[1])
    assert service.wait_until(lambda: client.get(INFO).status_code == 401, 5) < 1


def test_images_a_minute(service):
    """A key that has sent as many images as it may is told when to ask again; other keys are not held up."""
    client = service.client(new_key(service.project, per_minute=3))
    sent = [service.predict(client=client) for _ in range(4)]
    assert [answer.status_code for answer in sent] == [200, 200, 200, 429]
    assert 1 <= int(sent[3].headers["retry-after"]) <= 60
    assert service.predict().status_code == 200


def test_a_batch_costs_its_images(service):
    """A batch counts as many images as it has."""
    client = service.client(new_key(service.project, per_minute=4))
    files = [("images", ("a.png", image_bytes()))] * 4
    assert client.post("/api/v1/predict/batch", files=files).status_code == 200
    assert service.predict(client=client).status_code == 429


def test_a_key_is_nowhere(service):
    """A key is neither in the service's log, its figures nor its audit log, and is kept as a hash only."""
    key = new_key(service.project, "admin")
    client = service.client(key)
    service.predict(client=client)
    client.get(f"/{key}")
    service.predict(b"no image", client=client)
    secret = key.split("_", 2)[2]
    assert secret not in service.log + client.get("/metrics").text + client.get("/api/v1/usage").text
    for path in service.project.state.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert key.split("_")[1] in {each.id for each in list_keys(api_keys_path(service.project.state))}


def test_the_host_that_is_asked_for(serve):
    """A service without keys answers only who calls it by this machine's own names: no page from elsewhere."""
    service = serve()
    for host in (f"127.0.0.1:{service.port}", "localhost", f"localhost:{service.port}", "[::1]:80"):
        assert service.get("/livez", headers={"Host": host}).status_code == 200, host
    for host in (
        "evil.example",
        f"evil.example:{service.port}",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "0.0.0.0",
    ):
        assert service.get("/livez", headers={"Host": host}).status_code == 421, host
        assert service.predict(headers={"Host": host}).status_code == 421, host
    assert len(service.audited()) == 0


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.0.2.1", False), ("example.org", False), ("127.0.0.1.nip.io", False), ("", False)],
)  # fmt: skip
def test_addresses_of_this_machine_alone(host, is_here):
    """Only what no other machine can reach counts as this machine alone."""
    assert is_loopback(host) is is_here


def test_without_keys_on_this_machine_alone(forks, project):
    """Without keys the service starts on no address that others could reach, and says what to do."""
    code, said = run_command(forks, project, *COMMAND, "--no-auth", "--host", "0.0.0.0")
    assert code == 2 and "--no-auth" in said and "medvision keys create" in said and "Traceback" not in said


def test_nobody_could_ask(forks, project):
    """A service that asks for keys does not start where there is none."""
    code, said = run_command(forks, project, *COMMAND)
    assert code == 2 and "medvision keys create" in said


def certificate(folder):
    """Write a certificate for this machine and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls(serve, project, tmp_path):
    """With a certificate the service answers over TLS alone, and tells browsers to stay with it."""
    cert, key = certificate(tmp_path)
    options = ("--tls-cert", str(cert), "--tls-key", str(key))
    service = serve(*options, key=new_key(project), scheme="https")
    client = service.client(verify=ssl.create_default_context(cafile=str(cert)))
    answer = service.predict(client=client)
    assert answer.status_code == 200 and "max-age" in answer.headers["strict-transport-security"]
    with service.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            said = connection.recv(4096)
        except ConnectionError:
            said = b""
        assert b"alive" not in said
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cert)
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), service.connect() as connection:
        old.wrap_socket(connection, server_hostname="127.0.0.1")
