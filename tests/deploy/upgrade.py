"""Whether the chart lets a ledger be changed while payoutd runs over the old one, by what it asks of a cluster.

The cluster is a stand-in: it knows one workload, and says so in the words of Kubernetes' API.
"""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edge import ROOT, claim

LISTS = {
    "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}],
    },
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis/apps/v1": {
        "kind": "APIResourceList",
        "groupVersion": "apps/v1",
        "resources": [
            {"name": f"{kind.lower()}s", "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
            for kind in ("Deployment", "StatefulSet")
        ],
    },
}


class Cluster(ThreadingHTTPServer):
    def __init__(self, kind, wanted, left):
        super().__init__(("127.0.0.1", 0), Api)
        path = f"/apis/apps/v1/namespaces/default/{kind.lower()}s/payoutd"
        self.asked, self.pages = [], LISTS | {
            path: {
                "kind": kind,
                "apiVersion": "apps/v1",
                "metadata": {"name": "payoutd"},
                "spec": {"replicas": wanted},
                "status": {"replicas": left},
            }
        }

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        page = self.server.pages.get(path)
        body = json.dumps(page or missing).encode()
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def upgraded(kind, wanted, left, *values):
    """Whether the chart renders beside such a workload, why not, and what it asked for."""
    with Cluster(kind, wanted, left) as cluster:
        ran = subprocess.run(
            ["helm", "template", "payoutd", str(ROOT / "deploy/helm/payoutd"), "--dry-run=server", "--kube-version", "1.31"]
            + ["--kube-apiserver", f"http://127.0.0.1:{cluster.server_port}", *values],
            capture_output=True,
            text=True,
        )
    return ran.returncode == 0, ran.stderr, cluster.asked


def main():
    shared = ["--set", "ledger.url=postgres://payoutd@db.internal/payoutd"]
    for old, new, values in [("StatefulSet", "Deployment", shared), ("Deployment", "StatefulSet", [])]:
        for wanted, left, what in [(1, 1, "runs"), (0, 1, "still drains")]:
            taken, why, asked = upgraded(old, wanted, left, *values)
            refused = not taken and f"a {old} still runs over another ledger" in why
            claim(f"no {new} comes beside a {old} that {what}", refused, why, asked)
        taken, why, asked = upgraded(old, 0, 0, *values)
        claim(f"it comes once the {old} is gone", taken, why, asked)
        taken, why, asked = upgraded(new, 3, 3, *values)
        claim(f"and a {new} is upgraded as it runs", taken, why, asked)


if __name__ == "__main__":
    sys.exit(main())
