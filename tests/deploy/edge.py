"""The shipped Envoy settings, in a real Envoy, between a client and a stand-in for payoutd.

Usage: edge.py ENVOY FOLDER. The folder is filled with copies of deploy/mesh/envoy, as its head says, and
with certificates. Prints a line for each claim that holds; the first that does not ends it.
"""

import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
CALLER, STRANGER = "spiffe://example.org/ns/billing/sa/api", "spiffe://elsewhere.org/ns/billing/sa/api"
CREATE = "/payout.v1.PayoutService/CreatePayout"
GET = "/payout.v1.PayoutService/GetPayout"
HEALTH = "/grpc.health.v1.Health/Check"
RETRY_ALL = (("x-envoy-retry-grpc-on", "unavailable,cancelled"), ("x-envoy-max-retries", "5"))
FORGED = (("x-forwarded-client-cert", "Hash=00;URI=spiffe://example.org/ns/payments/sa/operator"),)


def claim(name, holds, *found):
    if not holds:
        sys.exit(f"FAIL  {name}: {found}")
    print(f"ok  {name}")


class StandIn(grpc.GenericRpcHandler):
    """Answers health as it is told to, and all else with UNAVAILABLE."""

    def __init__(self):
        self.calls, self.names, self.serving = [], [], True

    def service(self, details):
        headers = {}
        for name, value in details.invocation_metadata:
            headers.setdefault(name, []).append(value)
        if details.method == "/grpc.health.v1.Health/Check":
            status = b"\x08\x01" if self.serving else b"\x08\x02"
            return grpc.unary_unary_rpc_method_handler(lambda request, context: status)
        if details.method == "/grpc.health.v1.Health/Watch":
            return grpc.unary_stream_rpc_method_handler(self.health)
        self.calls.append(details.method)
        self.names.append(headers.get("x-forwarded-client-cert", []))
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        )

    def health(self, request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        yield b"\x08\x01"
        gone.wait()


def certificate(folder, authority, name, uri):
    """NAME.crt and NAME.key, valid for 127.0.0.1 and the URI, signed by AUTHORITY.crt."""
    run = lambda *command: subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=folder)
    if not (folder / f"{authority}.key").exists():
        run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-keyout", f"{authority}.key", "-out", f"{authority}.crt", "-subj", f"/CN={authority}")
    run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key",
        "-out", f"{name}.csr", "-subj", f"/CN={name}")
    (folder / f"{name}.ext").write_text(f"subjectAltName=URI:{uri},DNS:{name},IP:127.0.0.1\n")
    run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
        "-CAcreateserial", "-days", "2", "-out", f"{name}.crt", "-extfile", f"{name}.ext")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def code(channel, method, metadata=(), timeout=10):
    try:
        channel.unary_unary(method)(b"", metadata=metadata, timeout=timeout, wait_for_ready=method == HEALTH)
        return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()


def until(what, patience=15):
    end = time.monotonic() + patience
    while not what():
        if time.monotonic() > end:
            sys.exit("FAIL  waited in vain")


def main(envoy, folder):
    folder = pathlib.Path(folder)
    tls = folder / "tls"
    tls.mkdir(parents=True)
    certificate(tls, "callers-ca", "billing", CALLER)
    certificate(tls, "callers-ca", "stranger", STRANGER)
    certificate(tls, "payoutd-ca", "payoutd", "spiffe://example.org/payoutd")
    certificate(tls, "payoutd-ca", "edge", "spiffe://example.org/edge")
    read = lambda name: (tls / name).read_bytes()

    stand_in = StandIn()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[stand_in])
    identity = grpc.ssl_server_credentials([(read("payoutd.key"), read("payoutd.crt"))], read("payoutd-ca.crt"), True)
    behind, front, admin = server.add_secure_port("127.0.0.1:0", identity), free_port(), free_port()
    server.start()
    for source in (ROOT / "deploy/mesh/envoy").iterdir():
        text = source.read_text().replace("/etc/envoy", str(folder)).replace(": 50051", f": {behind}")
        (folder / source.name).write_text(text.replace(": 8443", f": {front}").replace(": 9901", f": {admin}"))
    start = [envoy, "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1"]
    check = subprocess.run([*start, "--mode", "validate"], capture_output=True, text=True)
    complaints = re.findall(r".*\[(?:warning|error|critical)\].*", check.stderr)
    claim("Envoy takes the shipped settings without a complaint", check.returncode == 0 and not complaints, complaints)

    log = open(folder / "envoy.err", "w")
    process = subprocess.Popen(start, stdout=log, stderr=log)
    try:
        speak(front, admin, read, stand_in)
    finally:
        process.terminate()
        process.wait()
        server.stop(None)


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def speak(front, admin, read, stand_in):
    def channel(name):
        pair = (read(f"{name}.key"), read(f"{name}.crt")) if name else (None, None)
        identity = grpc.ssl_channel_credentials(read("payoutd-ca.crt"), *pair)
        return grpc.secure_channel(f"127.0.0.1:{front}", identity, [("grpc.ssl_target_name_override", "edge")])

    billing = channel("billing")
    # Waits for the connection, and for what is behind it.
    until(lambda: code(billing, HEALTH) is grpc.StatusCode.OK)

    def tried(method, metadata=()):
        stand_in.calls.clear()
        found = code(billing, method, metadata)
        return found.name, len(stand_in.calls)

    found = tried(CREATE)
    claim("a CreatePayout that is answered UNAVAILABLE is tried once", found == ("UNAVAILABLE", 1), found)
    found = tried(CREATE, RETRY_ALL)
    claim("and once, too, where the caller asks Envoy for retries", found == ("UNAVAILABLE", 1), found)
    found = tried(GET)
    claim("a GetPayout is tried three times", found == ("UNAVAILABLE", 3), found)
    found = tried("/payout.v1.PayoutService/CreatePayouts")
    claim("a method that is not listed goes nowhere", found == ("UNIMPLEMENTED", 0), found)

    stand_in.names.clear()
    code(billing, CREATE, FORGED)
    (name,) = stand_in.names[0]
    claim("payoutd is told the caller's name, and not the one it claims",
          f"URI={CALLER}" in name and "operator" not in name and "," not in name, name)

    stand_in.calls.clear()
    refused = [code(channel(name), CREATE, timeout=3).name for name in (None, "stranger", "edge")]
    claim("no certificate, a foreign name and a foreign authority are turned away",
          refused == ["UNAVAILABLE"] * 3 and not stand_in.calls, refused, stand_in.calls)

    stand_in.serving = False
    until(lambda: "failed_active_hc" in page(admin, "/clusters"))
    found = tried(CREATE)
    claim("the only instance is asked even when it is NOT_SERVING, since it can say why", found == ("UNAVAILABLE", 1), found)


if __name__ == "__main__":
    main(*sys.argv[1:])
