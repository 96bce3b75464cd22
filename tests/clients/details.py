"""Reads the details of a bad request as any Python caller would; prints the bad fields' names."""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from payout.v1 import payout_pb2 as pb, payout_pb2_grpc

payouts = payout_pb2_grpc.PayoutServiceStub(grpc.insecure_channel(sys.argv[1]))
try:
    payouts.CreatePayout(pb.CreatePayoutRequest(third_party_id="a b"), timeout=10)
except grpc.RpcError as error:
    status = rpc_status.from_call(error)
    assert status.code == error.code().value[0], "the status in the details is the call's"
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details), "BadRequest"
    print(*sorted(violation.field for violation in bad.field_violations))
