"""deploy/mesh/service-config.json as gRPC's own library takes it, by what it then does on the wire."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from edge import CREATE, GET, ROOT, StandIn, claim, code


def main():
    stand_in = StandIn()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[stand_in])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    config = (ROOT / "deploy/mesh/service-config.json").read_text()

    def tried(method, text):
        stand_in.calls.clear()
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.service_config", text)]) as channel:
            found = code(channel, method, timeout=None)
        return found.name, len(stand_in.calls)

    found = tried(CREATE, config)
    claim("with the service config a CreatePayout is tried once", found == ("UNAVAILABLE", 1), found)
    found = tried(GET, config)
    claim("and a GetPayout three times", found == ("UNAVAILABLE", 3), found)

    # Nobody there: a call that waits for readiness ends by the config's own time-out, and not at once.
    with grpc.insecure_channel(
        "127.0.0.1:1", [("grpc.service_config", config.replace('"35s"', '"0.3s"'))]
    ) as channel:
        found = code(channel, CREATE, timeout=None).name
    claim("a CreatePayout waits for a connection", found == "DEADLINE_EXCEEDED", found)
    server.stop(None)


if __name__ == "__main__":
    sys.exit(main())
