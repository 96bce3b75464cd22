"""Makes one payout in the trace that it is given, as any Python caller with a tracer would."""

import sys

import grpc
from payout.v1 import payout_pb2 as pb, payout_pb2_grpc

address, traceparent = sys.argv[1:]
payouts = payout_pb2_grpc.PayoutServiceStub(grpc.insecure_channel(address))
request = pb.CreatePayoutRequest(
    third_party_id="metrics-1",
    currency="195@195",
    address="TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS",
    amount="7.654321",
)
answer = payouts.CreatePayout(request, timeout=10, metadata=[("traceparent", traceparent)])
assert answer.cid > 0, "accepted"
