"""payoutd and its sandbox, as a platform would start them: two processes, and a ledger that outlives the first."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PID = 1382528827416576
API_KEY = "f502a9ac9ca54327986f29c03b271491"  # the vendor's published example; it opens nothing
PATIENCE = 20


def binary():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/payoutd"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, found, patience=PATIENCE):
    """Asks again until there is an answer: of what other processes do, nothing else is told."""
    end = time.monotonic() + patience
    while not (answer := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.02)
    return answer


def http(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read()


class Service:
    """Runs between `with` and its end. `address` stays the same over restarts."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.log = open(pathlib.Path(self.folder.name) / "payoutd.log", "w")
        self.address, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.process = None

    def __enter__(self):
        self.sandbox = subprocess.Popen(
            [binary(), "sandbox", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--outcome", "6"],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        cregis, self.control = re.findall(r"http://[0-9.:]+", self.sandbox.stdout.readline())
        callback = f"127.0.0.1:{free_port()}"
        self.settings = {
            "GRPC__LISTEN": self.address,
            "ADMIN__LISTEN": self.admin,
            "CALLBACK__LISTEN": callback,
            "CALLBACK__PUBLIC_URL": f"http://{callback}",
            "LEDGER__URL": f"sqlite:{self.folder.name}/payoutd.db",
            "PROJECT__PID": str(PID),
            "PROJECT__BASE_URL": cregis,
            "PROJECT__API_KEY": API_KEY,
        }
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        self.sandbox.kill()
        self.sandbox.communicate()
        self.log.close()
        self.folder.cleanup()

    def start(self):
        settings = {f"PAYOUTD_{name}": value for name, value in self.settings.items()}
        self.process = subprocess.Popen([binary(), "serve"], env=os.environ | settings, stdout=self.log, stderr=self.log)
        until("payoutd to be ready", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"payoutd ended with {self.process.returncode}: {self.told()}")
        try:
            return http(f"http://{self.admin}/readyz")
        except urllib.error.URLError:
            return None

    def told(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()[-2000:]

    def stop(self):
        """As a platform does: SIGTERM, and the service drains."""
        self.end(signal.SIGTERM)

    def kill(self):
        self.end(signal.SIGKILL)

    def end(self, how):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(PATIENCE * 2)

    def payouts(self, command):
        """The operator's command line."""
        subprocess.run([binary(), "payouts", command, "--addr", f"http://{self.address}"], check=True, capture_output=True)

    def unavailable(self):
        """How many CreatePayout calls have ended UNAVAILABLE since the service was started."""
        page = http(f"http://{self.admin}/metrics").decode()
        lines = re.findall(r'^payoutd_rpc_requests_total\{(.*)\} (\d+)$', page, re.MULTILINE)
        return sum(int(n) for labels, n in lines if '"CreatePayout"' in labels and '"UNAVAILABLE"' in labels)

    def fault(self, fault):
        http(f"{self.control}/faults", fault)

    def ordered(self, third_party_id):
        """The sandbox's order of that id, once there is one."""
        def order():
            orders = json.loads(http(f"{self.control}/orders"))
            return next((order for order in orders if order["third_party_id"] == third_party_id), None)
        return until(f"an order {third_party_id}", order)

    def posts(self, third_party_id):
        """How often the sandbox was asked to pay under that id."""
        requests = json.loads(http(f"{self.control}/requests"))
        sent = [one for one in requests if one["path"] == "/api/v1/payout"]
        return sum(one["third_party_id"] == third_party_id for one in sent)
