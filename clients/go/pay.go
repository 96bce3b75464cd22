// Package payoutd keeps the one rule for callers of payoutd: the same id until a final state. Short, to be used or copied.
package payoutd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	pb "payoutd/go/payout/v1"
)

// ErrNotFinal says that the time is over and the payout not known to be final: come back later, with the same id.
var ErrNotFinal = errors.New("not known to be final, come back with the same id")

// Detail returns the detail of that type in the error's google.rpc.Status, or nil. Without one of ours, the error says
// nothing about the money.
func Detail[T proto.Message](err error) T {
	for _, detail := range status.Convert(err).Details() {
		if found, ok := detail.(T); ok {
			return found
		}
	}
	var none T
	return none
}

// Pay asks for the payout until it is final, for as long as ctx allows, and returns it.
//
// It returns CreatePayout's error where the same id cannot help (retry is not same_id), and ErrNotFinal when ctx is done.
func Pay(ctx context.Context, payouts pb.PayoutServiceClient, request *pb.CreatePayoutRequest) (*pb.Payout, error) {
	var last error
	for ctx.Err() == nil {
		wait := time.Second
		payout, err := create(ctx, payouts, request)
		if err == nil {
			if payout = follow(ctx, payouts, payout); final(payout) {
				return payout, nil
			}
		}
		info := Detail[*errdetails.ErrorInfo](err)
		if info.GetDomain() == "payout.v1" && info.GetMetadata()["retry"] != "same_id" {
			return nil, err
		}
		if retry := Detail[*errdetails.RetryInfo](err); retry != nil {
			wait = retry.GetRetryDelay().AsDuration()
		}
		last = err
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil, fmt.Errorf("payout %s: %w: %w; last error: %v", request.GetThirdPartyId(), ErrNotFinal, ctx.Err(), last)
}

func create(ctx context.Context, payouts pb.PayoutServiceClient, request *pb.CreatePayoutRequest) (*pb.Payout, error) {
	ctx, cancel := context.WithTimeout(ctx, 35*time.Second)
	defer cancel()
	response, err := payouts.CreatePayout(ctx, request)
	return response.GetPayout(), err
}

// follow watches until the payout is final, has to be created again, or the stream ends, however it ends.
func follow(ctx context.Context, payouts pb.PayoutServiceClient, payout *pb.Payout) *pb.Payout {
	if final(payout) {
		return payout
	}
	// A connection that is silently dead ends here, too.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	changes, err := payouts.WatchPayout(ctx, &pb.WatchPayoutRequest{
		Pid:           payout.GetPid(),
		Id:            &pb.WatchPayoutRequest_ThirdPartyId{ThirdPartyId: payout.GetThirdPartyId()},
		AfterRevision: payout.GetRevision(),
	})
	for err == nil && !final(payout) && payout.GetState() != pb.PayoutState_PAYOUT_STATE_NOT_SENT {
		var change *pb.WatchPayoutResponse
		if change, err = changes.Recv(); change.GetPayout() != nil {
			payout = change.Payout
		}
	}
	return payout
}

func final(payout *pb.Payout) bool {
	switch payout.GetState() {
	case pb.PayoutState_PAYOUT_STATE_REJECTED, pb.PayoutState_PAYOUT_STATE_VOIDED, pb.PayoutState_PAYOUT_STATE_SUCCEEDED,
		pb.PayoutState_PAYOUT_STATE_FAILED, pb.PayoutState_PAYOUT_STATE_DENIED:
		return true
	}
	return false
}
