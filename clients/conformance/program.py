"""A language's program: one JSON object a line in, one a line out."""

import json
import queue
import subprocess
import threading

from service import ROOT

# Longer than any step takes; one that says nothing for so long never will.
PATIENCE = 60


class Program:
    """Runs between `with` and its end, and is started anew after it has failed to answer."""

    def __init__(self, client, address):
        self.command = [ROOT / "clients" / client / "conformance", address]
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        self.lines = queue.Queue()
        threading.Thread(target=self.read, args=(self.process.stdout, self.lines), daemon=True).start()
        self.runtime = self.line()["runtime"]

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.put(line)
        lines.put("")

    def line(self):
        try:
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise TimeoutError("the program says nothing") from None
        if not line:
            raise EOFError("the program has ended")
        return json.loads(line)

    def ask(self, step, on_event):
        """Makes the call; hands on each event as it comes, and returns the answer."""
        self.process.stdin.write(json.dumps(step, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        while "event" in (line := self.line()):
            on_event(line["event"])
        return line

    def again(self):
        self.__exit__()
        self.start()
