"""Errors that the matrix must find, planted on the wire between a client and the real service.

A proxy hands on each call as it is, whatever its method; a planted error changes what comes back from
CreatePayout. So the product holds no code that is only there to be wrong.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.rpc import error_details_pb2, status_pb2
from payout.v1 import payout_pb2 as pb

CREATE = "/payout.v1.PayoutService/CreatePayout"
DETAILS = "grpc-status-details-bin"


class Sound:
    """Hands on what comes; the others differ from it in one thing. `red` is the scenario that must find it."""

    def answer(self, data, context):
        return data

    def trailers(self, trailers):
        return trailers


class CidThroughADouble(Sound):
    red = "int64"

    def answer(self, data, context):
        response = pb.CreatePayoutResponse.FromString(data)
        largest = 2**63 - 1
        response.cid = response.payout.cid = min(int(float(response.cid)), largest)
        return response.SerializeToString()


class DetailsOutsideStatus(Sound):
    """The reason is there, but where no standard helper looks."""

    red = "bad request"

    def trailers(self, trailers):
        for name, value in trailers:
            if name != DETAILS:
                yield name, value
                continue
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    yield "error-info", json.dumps({"reason": info.reason, "metadata": dict(info.metadata)})


class CancelledWhileSending(Sound):
    red = "deadline"

    def answer(self, data, context):
        if pb.CreatePayoutResponse.FromString(data).payout.state == pb.PAYOUT_STATE_SENDING:
            context.abort(grpc.StatusCode.CANCELLED, "the deadline is near")
        return data


FAULTS = {
    "none": Sound,
    "a cid through a double": CidThroughADouble,
    "details outside google.rpc.Status": DetailsOutsideStatus,
    "CANCELLED instead of OK SENDING": CancelledWhileSending,
}


class Proxy(grpc.GenericRpcHandler):
    """Listens on `address` between `with` and its end. On the wire every call is a stream of messages each way."""

    def __init__(self, service, fault):
        self.fault = fault
        self.channel = grpc.insecure_channel(service)
        self.server = grpc.server(ThreadPoolExecutor(16), handlers=[self])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(None)
        self.channel.close()

    def service(self, details):
        def hand_on(requests, context):
            sent = [pair for pair in context.invocation_metadata() if not pair[0].startswith(("grpc-", "user-agent"))]
            call = self.channel.stream_stream(details.method)(requests, context.time_remaining(), sent)
            context.add_callback(call.cancel)
            fault = self.fault if details.method == CREATE else Sound()
            try:
                for data in call:
                    yield fault.answer(data, context)
            except grpc.RpcError as error:
                context.set_trailing_metadata(tuple(fault.trailers(error.trailing_metadata() or ())))
                context.set_code(error.code())
                context.set_details(error.details())

        return grpc.stream_stream_rpc_method_handler(hand_on)
