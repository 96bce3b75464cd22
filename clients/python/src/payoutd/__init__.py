"""The one rule for callers of payoutd: the same id until a final state. Short, to be used or copied."""

import time
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from payout.v1 import payout_pb2 as pb
from payout.v1.payout_pb2_grpc import PayoutServiceStub

M = TypeVar("M", bound=Message)

FINAL = frozenset({
    pb.PAYOUT_STATE_REJECTED,
    pb.PAYOUT_STATE_VOIDED,
    pb.PAYOUT_STATE_SUCCEEDED,
    pb.PAYOUT_STATE_FAILED,
    pb.PAYOUT_STATE_DENIED,
})


class NotFinal(Exception):
    """The time is over and the payout not known to be final: come back later, with the same id."""


def detail(error: grpc.RpcError, kind: type[M]) -> M | None:
    """The detail of that kind in the error's google.rpc.Status. Without one of ours, the error says nothing about the money."""
    status = rpc_status.from_call(error)
    found = kind()
    return found if status and any(one.Unpack(found) for one in status.details) else None


def pay(payouts: PayoutServiceStub, request: pb.CreatePayoutRequest, seconds: float = 86_400) -> pb.Payout:
    """Asks for the payout until it is final, for at most so many seconds, and returns it.

    Raises grpc.RpcError where the same id cannot help (`retry` is not `same_id`), and NotFinal when the time is over.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        wait = 1.0
        try:
            payout = payouts.CreatePayout(request, timeout=min(left, 35)).payout
            if payout.state in FINAL:
                return payout
            if payout := _watch(payouts, payout, end - time.monotonic()):
                return payout
        except grpc.RpcError as error:
            info = detail(error, error_details_pb2.ErrorInfo)
            if info and info.domain == "payout.v1" and info.metadata["retry"] != "same_id":
                raise
            if retry := detail(error, error_details_pb2.RetryInfo):
                wait = retry.retry_delay.ToTimedelta().total_seconds()
        time.sleep(max(0, min(wait, end - time.monotonic())))
    raise NotFinal(request.third_party_id)


def _watch(payouts, payout, left):
    """The final payout; None where it has to be created again, or the stream ended early, however it ended."""
    request = pb.WatchPayoutRequest(
        pid=payout.pid, third_party_id=payout.third_party_id, after_revision=payout.revision
    )
    # A connection that is silently dead ends here, too.
    changes = payouts.WatchPayout(request, timeout=min(left, 300))
    try:
        for change in changes:
            if change.payout.state in FINAL:
                return change.payout
            if change.payout.state == pb.PAYOUT_STATE_NOT_SENT:
                return None
    except grpc.RpcError:
        pass
    finally:
        changes.cancel()
