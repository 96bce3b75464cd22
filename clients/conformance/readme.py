"""A client's README as a newcomer would follow it: from the top, in an empty folder outside the checkout."""

import os
import pathlib
import re
import subprocess
import tempfile

from service import ROOT, binary

ADDRESS = "127.0.0.1:50051"


class Failed(Exception):
    """A snippet did not do what the README says."""


def readmes(clients):
    passed = failed = 0
    for client in clients:
        try:
            print(f"ok    clients/{client}/README.md: {follow(client)} snippets")
            passed += 1
        except Failed as wrong:
            print(f"FAIL  clients/{client}/README.md: {wrong}")
            failed += 1
    return passed, failed


def blocks(text):
    """Info string and text of each fenced block."""
    return re.findall(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)


def follow(client):
    readme = (ROOT / "clients" / client / "README.md").read_text()
    process = subprocess.Popen([binary(), "dev", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        address = next(match[1] for line in process.stdout if (match := re.match(r"serving on ([^;]*);", line)))
        with tempfile.TemporaryDirectory() as folder:
            return run(blocks(readme.replace(ADDRESS, address)), pathlib.Path(folder))
    finally:
        process.kill()
        process.communicate()


def run(found, folder):
    environment = os.environ | {
        "PAYOUTD": str(ROOT),
        "PATH": f"{ROOT}/.tools/bin:{os.environ['PATH']}",
        # Rust's snippets use what its setup has compiled.
        "CARGO_TARGET_DIR": str(ROOT / "clients/rust/target"),
    }
    printed = None
    for info, text in found:
        kind, _, name = info.partition(" ")
        if name:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif kind == "sh":
            done = subprocess.run(["bash", "-eu", "-c", text], cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise Failed(f"{text.strip()}: exit {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
            printed = done.stdout
        elif kind == "text":
            if plain(text) != plain(printed):
                raise Failed(f"wanted {plain(text)!r}, saw {plain(printed)!r}")
        else:
            raise Failed(f"a snippet that nobody runs: {info!r}")
    return len(found)


def plain(text):
    """Ids differ from run to run."""
    return re.sub(r"\d{4,}", "<number>", text.strip())
