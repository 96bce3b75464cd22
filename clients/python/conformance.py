"""The conformance program of Python: clients/conformance/README.md says what it reads and prints."""

import json
import platform
import sys
import threading

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from payout.v1 import payout_pb2 as pb
from payout.v1 import payout_pb2_grpc
from payoutd import detail, pay

PREFIX = "PAYOUT_STATE_"


def message(kind, fields):
    """The message of that kind; 64-bit integers come as texts, states without their prefix."""
    exact = {name: int(fields[name]) for name in ("pid", "cid", "after_revision") if name in fields}
    states = {name: [PREFIX + state for state in fields[name]] for name in ("states",) if name in fields}
    return kind(**fields | exact | states)


def shown(payout):
    names = ("third_party_id", "reason", "currency", "address", "amount", "remark", "memo")
    exact = {name: str(getattr(payout, name)) for name in ("pid", "cid", "revision")}
    state = pb.PayoutState.Name(payout.state).removeprefix(PREFIX)
    return {name: getattr(payout, name) for name in names} | exact | {"state": state}


def answer(response):
    seen = {"code": "OK"}
    if hasattr(response, "cid"):
        seen["cid"] = str(response.cid)
    if response.HasField("payout"):
        seen["payout"] = shown(response.payout)
    return seen


def failure(error):
    seen = {"code": error.code().name}
    if info := detail(error, error_details_pb2.ErrorInfo):
        seen |= {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
    if bad := detail(error, error_details_pb2.BadRequest):
        seen["violations"] = [violation.field for violation in bad.field_violations]
    if retry := detail(error, error_details_pb2.RetryInfo):
        seen["retry_after_ms"] = retry.retry_delay.ToMilliseconds()
    return seen


class Caller:
    """Each method makes one step's call."""

    def __init__(self, channel):
        self.payouts = payout_pb2_grpc.PayoutServiceStub(channel)
        self.operator = payout_pb2_grpc.OperatorServiceStub(channel)
        self.healths = health_pb2_grpc.HealthStub(channel)

    def create(self, step, timeout):
        request = message(pb.CreatePayoutRequest, step["request"])
        if "cancel_after_ms" not in step:
            return answer(self.payouts.CreatePayout(request, timeout=timeout))
        call = self.payouts.CreatePayout.future(request, timeout=timeout)
        threading.Timer(step["cancel_after_ms"] / 1000, call.cancel).start()
        try:
            return answer(call.result())
        except grpc.FutureCancelledError:
            return {"code": "CANCELLED"}

    def get(self, step, timeout):
        return answer(self.payouts.GetPayout(message(pb.GetPayoutRequest, step["request"]), timeout=timeout))

    def list(self, step, timeout):
        request, payouts = message(pb.ListPayoutsRequest, step["request"]), []
        while True:
            page = self.payouts.ListPayouts(request, timeout=timeout)
            payouts.extend(map(shown, page.payouts))
            request.page_token = page.next_page_token
            if not request.page_token:
                return {"code": "OK", "payouts": payouts}

    def watch(self, step, timeout):
        request = message(pb.WatchPayoutRequest, step["request"])
        changes = self.payouts.WatchPayout(request, timeout=timeout)
        return events(step, changes, (shown(one.payout) for one in changes if one.HasField("payout")))

    def resolve(self, step, timeout):
        request = message(pb.ResolvePayoutRequest, step["request"])
        return answer(self.operator.ResolvePayout(request, timeout=timeout))

    def set_intake(self, step, timeout):
        request = message(pb.SetIntakeRequest, step["request"])
        return {"code": "OK", "paused": self.operator.SetIntake(request, timeout=timeout).paused}

    def pay(self, step, timeout):
        payout = pay(self.payouts, message(pb.CreatePayoutRequest, step["request"]), timeout)
        return {"code": "OK", "cid": str(payout.cid), "payout": shown(payout)}

    def health(self, step, timeout):
        response = self.healths.Check(health_pb2.HealthCheckRequest(service=step["service"]), timeout=timeout)
        return {"code": "OK", "status": status(response)}

    def health_watch(self, step, timeout):
        changes = self.healths.Watch(health_pb2.HealthCheckRequest(service=step["service"]), timeout=timeout)
        return events(step, changes, map(status, changes))


def status(response):
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def events(step, call, found):
    for number, event in enumerate(found, 1):
        say({"event": event})
        if number == step.get("stop_after"):
            call.cancel()
            return {"code": "CANCELLED"}
    return {"code": "OK"}


def say(line):
    print(json.dumps(line, ensure_ascii=False), flush=True)


def main():
    say({"runtime": f"Python {platform.python_version()}, grpcio {grpc.__version__}"})
    with grpc.insecure_channel(sys.argv[1]) as channel:
        caller = Caller(channel)
        for line in sys.stdin:
            step = json.loads(line)
            timeout = step["timeout_ms"] / 1000 if "timeout_ms" in step else None
            try:
                say(getattr(caller, step["op"])(step, timeout))
            except grpc.RpcError as error:
                say(failure(error))


if __name__ == "__main__":
    main()
