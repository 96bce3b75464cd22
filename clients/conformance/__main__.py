"""Every client against every scenario, over the real payoutd and its sandbox; the README of each, executed.

Called by clients/run. Ends with a line `N passed, N failed`, and with 1 where one has failed.
"""

import argparse
import subprocess
import sys
import time

import yaml
from planted import FAULTS, Proxy
from program import Program
from readme import readmes
from scenario import Cell, Red
from service import ROOT, Service

CLIENTS = ["go", "java", "python", "node", "connect", "cpp", "ruby", "rust", "grpcurl"]
BOOK = yaml.safe_load((ROOT / "clients/conformance/scenarios.yaml").read_text())
SCENARIOS = {scenario["name"]: scenario for scenario in BOOK["scenarios"]}


def column(client, scenarios, fault):
    """The cells of one client, by scenario: None, or what is wrong; and the runtime's name."""
    seen = {}
    with Service() as service, Proxy(service.address, FAULTS[fault]()) as proxy:
        with Program(client, proxy.address if fault != "none" else service.address) as program:
            for name in scenarios:
                prefix = f"{client}-{name.replace(' ', '-')}"
                seen[name] = cell(Cell(BOOK["defaults"], service, program, prefix), SCENARIOS[name])
            return seen, program.runtime


def cell(cell, scenario):
    try:
        cell.run(scenario)
        return None
    except Red as red:
        return str(red)
    except (EOFError, TimeoutError, ValueError) as error:
        cell.program.again()
        return f"{error}"


def matrix(clients, scenarios, fault="none"):
    """Prints the table while it is made, and returns its cells."""
    table, runtimes = {}, {}
    for client in clients:
        began = time.monotonic()
        table[client], runtimes[client] = column(client, scenarios, fault)
        print(f"   {client}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    width = max(map(len, scenarios))
    print(f"\n{'':{width}}  " + "  ".join(clients))
    for name in scenarios:
        words = ("ok" if table[client][name] is None else "RED" for client in clients)
        row = "  ".join(f"{word:{len(client)}}" for word, client in zip(words, clients))
        print(f"{name:{width}}  {row}".rstrip())
    print()
    for client in clients:
        print(f"{client:8}  {runtimes[client]}")
    return table


def whole_matrix(clients, scenarios):
    table = matrix(clients, scenarios)
    passed = failed = 0
    for client, cells in table.items():
        for name, wrong in cells.items():
            passed, failed = passed + (wrong is None), failed + (wrong is not None)
            if wrong is not None:
                print(f"RED   {client}: {name}: {wrong}")
    return passed, failed


def planted(clients):
    """Each error that is planted turns its own cell red, in every language, and no other."""
    passed = failed = 0
    for fault, kind in list(FAULTS.items())[1:]:
        scenarios = ["utf-8", "bad request", "int64", "deadline"]
        print(f"\n== planted: {fault}")
        table = matrix(clients, scenarios, fault)
        for client in clients:
            red = [name for name in scenarios if table[client][name] is not None]
            found = red == [kind.red]
            passed, failed = passed + found, failed + (not found)
            print(f"{'ok  ' if found else 'FAIL'}  {client}: {fault}: red is {red}")
    return passed, failed


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("what", nargs="?", choices=["all", "matrix", "planted", "readmes"], default="all")
    arguments.add_argument("--client", action="append", choices=CLIENTS, help="only this one; may be repeated")
    arguments.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one; may be repeated")
    chosen = arguments.parse_args()
    clients, scenarios = chosen.client or CLIENTS, chosen.scenario or list(SCENARIOS)
    for client in clients:
        began = time.monotonic()
        subprocess.run([ROOT / "clients" / client / "setup"], check=True)
        print(f"   {client} is set up: {time.monotonic() - began:.0f} s", file=sys.stderr)
    parts = {
        "matrix": lambda: whole_matrix(clients, scenarios),
        "planted": lambda: planted(clients),
        "readmes": lambda: readmes(clients),
    }
    results = [part() for name, part in parts.items() if chosen.what in ("all", name)]
    passed, failed = map(sum, zip(*results))
    print(f"\n{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
