"""One cell of the matrix: a scenario, made by one client, against one service."""

import json
import re
import threading

from service import ROOT, until

CALLS = {"create", "get", "list", "watch", "resolve", "set_intake", "pay", "health", "health_watch"}
CATALOGUE = json.loads((ROOT / "docs/errors.json").read_text())["errors"]


class Red(Exception):
    """What was seen is not what the scenario says."""


class Cell:
    """`prefix` makes the ids of this cell its own."""

    def __init__(self, defaults, service, program, prefix):
        self.defaults, self.service, self.program = defaults, service, program
        self.names = {"id": prefix}

    def run(self, scenario):
        for number, step in enumerate(scenario["steps"], 1):
            try:
                self.step(step)
            except Red as red:
                raise Red(f"step {number}: {red}") from None

    def step(self, step):
        kind = next(iter(step))
        if kind in CALLS:
            self.call(kind, step)
        elif kind == "sandbox":
            self.keep(step, self.sandbox(self.filled(step["sandbox"])))
        elif kind == "posts":
            for name, wanted in self.filled(step["posts"]).items():
                agree("posts", wanted, self.service.posts(name))
        else:
            raise ValueError(f"no such step: {kind}")

    def sandbox(self, action):
        if "faults" in action:
            return self.service.fault(action["faults"])
        order = self.service.ordered(action["orders"])
        return order | {"cid": str(order["cid"])}

    def call(self, kind, step):
        wanted, tries = self.filled(step.get("expect", {})), step.get("tries", 1)
        for left in reversed(range(tries)):
            seen, events = self.ask(kind, step)
            try:
                in_order = wanted.get("events") == "in order"
                agree("", {name: value for name, value in wanted.items() if name != "events"}, seen)
                agree_events(self.filled(step.get("events", [])), events, in_order)
                agree_catalogue(seen)
                break
            except Red:
                if not left:
                    raise
        self.keep(step, seen | {"events": events})

    def ask(self, kind, step):
        line = {"op": kind} | {key: step[key] for key in ("timeout_ms", "stop_after", "cancel_after_ms") if key in step}
        argument = self.filled(step[kind])
        if kind.startswith("health"):
            line["service"] = argument
        else:
            defaults = self.filled(self.defaults) if kind in ("create", "pay") else {}
            line["request"] = defaults | argument
        if kind == "pay" or "cancel_after_ms" not in line:
            line.setdefault("timeout_ms", 40_000)
        events, failed = [], []
        meanwhile = self.meanwhile(self.filled(step.get("meanwhile", [])), events, failed)
        try:
            seen = self.program.ask(line, events.append)
        finally:
            meanwhile.join()
        if failed:
            raise failed[0]
        return seen, events

    def meanwhile(self, actions, events, failed):
        before = self.service.unavailable() if any("answered" in action for action in actions) else 0

        def act():
            try:
                for action in actions:
                    self.act(action, events, before)
            except Exception as error:  # told where the step is judged
                failed.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        return thread

    def act(self, action, events, before):
        (kind, what), = action.items()
        if kind == "answered":
            until("an UNAVAILABLE", lambda: self.service.unavailable() > before)
        elif kind == "ordered":
            self.service.ordered(what)
        elif kind == "events":
            until(f"{what} events", lambda: len(events) >= what)
        elif kind == "payouts":
            self.service.payouts(what)
        elif kind == "service":
            {"start": self.service.start, "stop": self.service.stop, "kill": self.service.kill}[what]()
        else:
            raise ValueError(f"no such action: {kind}")

    def keep(self, step, seen):
        for name, path in step.get("keep", {}).items():
            value = seen
            try:
                for part in path.split("."):
                    value = value[int(part) if isinstance(value, list) else part]
            except (KeyError, IndexError):
                raise Red(f"nothing to keep at {path} in {seen}") from None
            self.names[name] = value

    def filled(self, value):
        """The value with this cell's names in place of `$name`."""
        if isinstance(value, dict):
            return {self.filled(key): self.filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.filled(one) for one in value]
        if isinstance(value, str):
            return re.sub(r"\$([a-z]+)", lambda name: self.names[name[1]], value)
        return value


def agree(path, wanted, seen):
    """Everything that is wanted must be in what was seen."""
    def differs():
        raise Red(f"{path or 'answer'}: wanted {wanted!r}, saw {seen!r}")

    if isinstance(wanted, dict) and list(wanted) == ["any order"]:
        if not isinstance(seen, list) or sorted(seen) != sorted(wanted["any order"]):
            differs()
    elif isinstance(wanted, dict):
        if not isinstance(seen, dict):
            differs()
        for name, one in wanted.items():
            try:
                agree(f"{path}.{name}".strip("."), one, seen.get(name))
            except Red as red:
                raise Red(f"{red}{'' if path else f' (whole answer: {seen})'}") from None
    elif isinstance(wanted, list):
        if not isinstance(seen, list):
            differs()
        if wanted and isinstance(wanted[0], dict):
            remaining = iter(seen)  # each of them, in this order; others may lie between
            if not all(any(fits(one, other) for other in remaining) for one in wanted):
                differs()
        elif wanted != seen:
            differs()
    elif isinstance(wanted, str) and wanted.startswith("~"):
        if not isinstance(seen, str) or not re.fullmatch(wanted[1:], seen):
            differs()
    elif wanted == "absent":
        if seen:
            differs()
    elif wanted != seen or type(wanted) is not type(seen):
        differs()


def fits(wanted, seen):
    try:
        agree("", wanted, seen)
    except Red:
        return False
    return True


def agree_events(wanted, events, in_order):
    if wanted:
        agree("events", wanted, events) if isinstance(wanted[0], dict) else agree("events", wanted, events[:len(wanted)])
        if isinstance(wanted[0], dict):
            agree("last event", wanted[-1], events[-1])
    if in_order:
        revisions = [int(event["revision"]) for event in events]
        first = int(wanted[0]["revision"])
        agree("revisions", list(range(first, first + len(events))), revisions)


def agree_catalogue(seen):
    """An error of ours is what docs/errors.json says of its reason."""
    if "reason" not in seen:
        return
    known = next((one for one in CATALOGUE if one["reason"] == seen["reason"]), None)
    if not known:
        raise Red(f"docs/errors.json does not know {seen['reason']}")
    metadata = seen.get("metadata", {})
    if seen["code"] not in known["codes"] or metadata.get("retry") != known["retry"]:
        raise Red(f"docs/errors.json says {known}, saw {seen}")
    if set(metadata) != set(known["metadata"]) | {"retry"}:
        raise Red(f"metadata: docs/errors.json says {known['metadata']}, saw {metadata}")
    if ("retry_after_ms" in seen) != known["retry_info"]:
        raise Red(f"RetryInfo: docs/errors.json says {known['retry_info']}, saw {seen}")
