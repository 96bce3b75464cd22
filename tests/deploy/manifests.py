"""What must hold of the manifests, whoever wrote them out.

    manifests.py schemas FILE...      every document fits its schema, unknown fields are mistakes
    manifests.py newest FILE...       the same, by the newest Kubernetes alone
    manifests.py restricted FILE...   pods keep to Kubernetes' "restricted" standard, and to our own rules
    manifests.py network FILE...      who comes in is named down to the pod, and the way out leads nowhere inside
    manifests.py istio FILE...        in Istio every visitor but Prometheus has a certificate and a name
    manifests.py callers FILE...      payoutd knows its callers by name, and their roots are not the server's issuer's
    manifests.py agree ONE OTHER      two renderings say the same, but for labels and generated names

Kubernetes' own kinds are judged by its published schemas, Istio's and the Gateway API's by the CRDs of
their Go modules in .tools/crds. CEL rules in CRDs are not run. For Linkerd's and the Prometheus operator's
kinds no package carries schemas: KNOWN lists the fields that we use.
"""

import ipaddress
import pathlib
import sys
import tomllib

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The oldest that the chart allows, and the newest that is known.
VERSIONS = ["1.29", "1.37"]
WORKLOADS = ["Deployment", "StatefulSet"]


def text(**properties):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": [*properties]}


ANY, WORD = {"type": "object"}, {"type": "string"}
KNOWN = {
    ("policy.linkerd.io/v1beta3", "Server"): text(podSelector=ANY, port=WORD, proxyProtocol={"const": "gRPC"}),
    ("policy.linkerd.io/v1alpha1", "MeshTLSAuthentication"): text(identities={"type": "array", "minItems": 1}),
    ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy"): text(
        targetRef=text(group=WORD, kind=WORD, name=WORD),
        requiredAuthenticationRefs={"type": "array", "items": text(group=WORD, kind=WORD, name=WORD)},
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): text(
        jobLabel=WORD, selector=ANY, endpoints={"type": "array", "items": text(port=WORD, path=WORD, interval=WORD)}
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): text(groups={"type": "array", "minItems": 1}),
}


def documents(path):
    return [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]


def named(document):
    return f"{document['kind']}/{document['metadata']['name']}"


# === schemas ===


def strict(schema):
    """The schema, with unknown fields refused, as a server with strict field validation does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    closed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def custom_schemas():
    found = {}
    for path in (ROOT / ".tools/crds").iterdir():
        for crd in documents(path):
            if crd["kind"] != "CustomResourceDefinition":
                continue
            for version in crd["spec"]["versions"]:
                kind = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
                found[kind] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def newest(paths):
    schemas(paths, VERSIONS[-1:])


def schemas(paths, versions=VERSIONS):
    custom, count = custom_schemas(), 0
    for path in paths:
        for document in documents(path):
            count += 1
            kind = (document["apiVersion"], document["kind"])
            schema = KNOWN.get(kind) or strict(custom.get(kind))
            try:
                if schema:
                    jsonschema.validate(document["spec"], schema)
                else:
                    for version in versions:
                        kubernetes_validate.validate(document, version, strict=True)
            except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
                sys.exit(f"{path}: {named(document)}: {error.message} at {list(error.path)}")
    assert count, "no documents"


# === restricted ===


def kept(kind, spec, container):
    """What keeps an id from being paid by two ledgers."""
    variables = {variable["name"]: variable["value"] for variable in container.get("env", [])}
    url = variables.get("PAYOUTD_LEDGER__URL")
    claims = [volume for volume in spec["template"]["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    if kind == "StatefulSet":
        return {
            "one replica": spec["replicas"] == 1 and "volumeClaimTemplates" not in spec,
            "one ledger": url is None and len(claims) == 1,
        }
    return {
        "a ledger that is shared": str(url).startswith("postgres") and not claims,
        "the next one serves before the last one drains": spec["strategy"]["rollingUpdate"]
        == {"maxSurge": 1, "maxUnavailable": 0},
        "spread": len(spec["template"]["spec"]["topologySpreadConstraints"]) == 2,
        "a place for its witness": any("emptyDir" in volume for volume in spec["template"]["spec"]["volumes"]),
    }


def restricted(paths):
    pods = 0
    for path in paths:
        for document in documents(path):
            if document["kind"] not in WORKLOADS:
                continue
            pods += 1
            spec = document["spec"]
            pod = spec["template"]["spec"]
            (container,) = pod["containers"]
            inside, around = container["securityContext"], pod["securityContext"]
            resources = container["resources"]
            modes = {volume["secret"].get("defaultMode") for volume in pod["volumes"] if "secret" in volume}
            rules = kept(document["kind"], spec, container) | {
                "not root": around["runAsNonRoot"] and around["runAsUser"] == around["fsGroup"] == 65532,
                "seccomp": around["seccompProfile"] == {"type": "RuntimeDefault"},
                "no capabilities": inside["capabilities"] == {"drop": ["ALL"]},
                "no escalation": inside["allowPrivilegeEscalation"] is False,
                "read-only root": inside["readOnlyRootFilesystem"] is True,
                "no host": not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
                "kinds of volume": all(
                    set(volume) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
                    for volume in pod["volumes"]
                ),
                "no token of the API server": pod["automountServiceAccountToken"] is False,
                "no variables of Services": pod["enableServiceLinks"] is False,
                "secrets are files of the group": modes == {0o440},
                "no secret among the variables": "secretKeyRef" not in str(container.get("env", [])),
                "grace for the drain": pod["terminationGracePeriodSeconds"] >= 45,
                "liveness depends on nothing": container["livenessProbe"]["httpGet"]["path"] == "/livez",
                "memory is asked for as it is allowed": resources["requests"]["memory"] == resources["limits"]["memory"],
                "ephemeral storage is bounded": all("ephemeral-storage" in part for part in resources.values()),
            }
            broken = [name for name, holds in rules.items() if not holds]
            if broken:
                sys.exit(f"{path}: {named(document)}: {broken}")
    assert pods, "no pods"


# === network ===

PRIVATE4 = ["10.0.0.1", "100.64.0.1", "169.254.169.254", "172.16.0.1", "192.168.0.1"]


def inside():
    """Addresses in a cluster, and the same IPv4 addresses by NAT64, 6to4 and Teredo."""
    for text in PRIVATE4:
        number = int(ipaddress.IPv4Address(text))
        yield text
        yield str(ipaddress.IPv6Address((0x0064FF9B << 96) | number))
        yield str(ipaddress.IPv6Address((0x0064FF9B0001 << 80) | number))
        yield str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))
        yield str(ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)))
    yield from ("fd00:ec2::254", "fe80::1")


def reached(policy, address, port):
    """Whether one of the policy's ipBlocks lets this address be asked on this port."""
    address = ipaddress.ip_address(address)
    blocks = [
        peer["ipBlock"]
        for rule in policy["egress"]
        if port in [allowed["port"] for allowed in rule["ports"]]
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    return any(
        address in ipaddress.ip_network(block["cidr"])
        and not any(address in ipaddress.ip_network(hole) for hole in block.get("except", []))
        for block in blocks
    )


def network(paths):
    for path in paths:
        found = {document["kind"]: document for document in documents(path)}
        policy = found["NetworkPolicy"]["spec"]
        (workload,) = (found[kind] for kind in WORKLOADS if kind in found)
        variables = str(workload["spec"]["template"]["spec"]["containers"][0].get("env", []))
        settings = tomllib.loads(found["ConfigMap"]["data"]["payoutd.toml"])
        traced = "otlp_endpoint" in settings.get("telemetry", {}) or "OTLP_ENDPOINT" in variables
        rules = policy["ingress"] + policy["egress"]
        peers = [peer for rule in rules for peer in rule.get("from", rule.get("to"))]
        where = [address for address in inside() if reached(policy, address, 443)]
        ports = [allowed["port"] for rule in policy["egress"] for allowed in rule["ports"]]
        broken = [
            name
            for name, holds in {
                "every peer is an address, or pods of a namespace": all(
                    "ipBlock" in peer or {"namespaceSelector", "podSelector"} <= peer.keys() for peer in peers
                ),
                "Cregis is reached": all(reached(policy, address, 443) for address in ("1.1.1.1", "2606:4700::1111")),
                f"nothing inside is reached: {where}": not where,
                "a node's own cache of names is asked": reached(policy, "169.254.20.10", 53),
                "a collector is reached where one is set": (4317 in ports) == traced,
            }.items()
            if not holds
        ]
        if broken:
            sys.exit(f"{path}: {broken}")


# === istio ===


def istio(paths):
    for path in paths:
        found = {document["kind"]: document for document in documents(path)}
        peers = found["PeerAuthentication"]["spec"]
        plain = [port for port, mtls in peers.get("portLevelMtls", {}).items() if mtls["mode"] != "STRICT"]
        # (ports, paths) of the rules that let somebody in without a name.
        nameless = [
            (to["operation"]["ports"], to["operation"]["paths"])
            for rule in found["AuthorizationPolicy"]["spec"]["rules"]
            for to in rule["to"]
            if not (names := [name for by in rule.get("from", []) for name in by["source"].get("principals", [])])
            or any("*" in name for name in names)
        ]
        if peers["mtls"]["mode"] != "STRICT" or plain not in ([], ["9090"]):
            sys.exit(f"{path}: plain text is taken on {plain}")
        if nameless not in ([], [(["9090"], ["/metrics"])]):
            sys.exit(f"{path}: whoever it is may ask {nameless}")


# === callers ===


def callers(paths):
    for path in paths:
        found = {document["kind"]: document for document in documents(path)}
        settings = tomllib.loads(found["ConfigMap"]["data"]["payoutd.toml"])
        roles = [set(caller["roles"]) for caller in settings.get("caller", [])]
        rules = {
            "one may create": any("create" in each for each in roles),
            "whoever may create may not operate": not any({"create", "operate"} <= each for each in roles),
        }
        if tls := settings["grpc"].get("tls"):
            (workload,) = (found[kind] for kind in WORKLOADS if kind in found)
            pod = workload["spec"]["template"]["spec"]
            mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
            of = {key: secrets[mounts[str(pathlib.PurePath(file).parent)]] for key, file in tls.items()}
            rules["callers' roots are in a Secret of their own"] = list(of.values()).count(of["client_ca_file"]) == 1
        broken = [name for name, holds in rules.items() if not holds]
        if broken:
            sys.exit(f"{path}: {broken}")


# === agree ===


def plain(path):
    """Kind and name to content, without what a tool adds: labels, hashes in names, annotations of its own."""
    found = {}
    for document in documents(path):
        meta = document["metadata"]
        name = meta["name"]
        if document["kind"] == "ConfigMap":
            name = "payoutd"
            document["data"] = tomllib.loads(document["data"]["payoutd.toml"])
        if document["kind"] in WORKLOADS:
            template = document["spec"]["template"]
            template["metadata"]["annotations"].pop("checksum/config", None)
            for container in template["spec"]["containers"]:
                container.pop("imagePullPolicy", None)
                # Their order means nothing.
                container["volumeMounts"].sort(key=lambda mount: mount["mountPath"])
            template["spec"]["volumes"].sort(key=lambda volume: volume["name"])
            for volume in template["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = "payoutd"
        found[document["kind"], name] = {key: value for key, value in document.items() if key != "metadata"}
    return found


def difference(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}, key=str):
            if key not in one or key not in other:
                return f"{path}.{key} stands in one of them only"
            if found := difference(one[key], other[key], f"{path}.{key}"):
                return found
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other)):
            if found := difference(*pair, f"{path}[{index}]"):
                return found
    elif one != other:
        return f"{path}: {one!r} and {other!r}"
    return None


def agree(paths):
    one, other = map(plain, paths)
    if found := difference(one, other):
        sys.exit(f"{paths[0]} and {paths[1]} differ: {found}")


if __name__ == "__main__":
    commands = {"schemas": schemas, "newest": newest, "restricted": restricted, "callers": callers}
    commands |= {"network": network, "istio": istio, "agree": agree}
    commands[sys.argv[1]](sys.argv[2:])
