package payoutd

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	pb "payoutd/go/payout/v1"
)

const (
	accepted  = pb.PayoutState_PAYOUT_STATE_ACCEPTED
	notSent   = pb.PayoutState_PAYOUT_STATE_NOT_SENT
	succeeded = pb.PayoutState_PAYOUT_STATE_SUCCEEDED
)

// script answers one call after the other with a state or an error.
type script struct {
	pb.PayoutServiceClient
	grpc.ServerStreamingClient[pb.WatchPayoutResponse]
	creates, changes []any
}

func next(answers *[]any) (*pb.Payout, error) {
	answer := (*answers)[0]
	*answers = (*answers)[1:]
	switch answer := answer.(type) {
	case pb.PayoutState:
		return &pb.Payout{State: answer}, nil
	case error:
		return nil, answer
	}
	return nil, nil
}

func (s *script) CreatePayout(
	context.Context, *pb.CreatePayoutRequest, ...grpc.CallOption,
) (*pb.CreatePayoutResponse, error) {
	payout, err := next(&s.creates)
	return &pb.CreatePayoutResponse{Payout: payout}, err
}

func (s *script) WatchPayout(
	context.Context, *pb.WatchPayoutRequest, ...grpc.CallOption,
) (grpc.ServerStreamingClient[pb.WatchPayoutResponse], error) {
	return s, nil
}

func (s *script) Recv() (*pb.WatchPayoutResponse, error) {
	payout, err := next(&s.changes)
	return &pb.WatchPayoutResponse{Payout: payout}, err
}

func failed(code codes.Code, details ...protoadapt.MessageV1) error {
	detailed, err := status.New(code, "").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return detailed.Err()
}

func TestPay(t *testing.T) {
	sameID := &errdetails.ErrorInfo{Domain: "payout.v1", Metadata: map[string]string{"retry": "same_id"}}
	newID := &errdetails.ErrorInfo{Domain: "payout.v1", Metadata: map[string]string{"retry": "new_id"}}
	others := &errdetails.ErrorInfo{Domain: "example.com"}
	soon := &errdetails.RetryInfo{RetryDelay: durationpb.New(5 * time.Second)}
	later := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)}
	refused := failed(codes.InvalidArgument, newID)
	const heartbeat = 0

	for name, test := range map[string]struct {
		creates, changes []any
		wait             time.Duration
		err              error
	}{
		"final at once":           {creates: []any{succeeded}},
		"watched":                 {creates: []any{accepted}, changes: []any{heartbeat, accepted, succeeded}},
		"RetryInfo":               {creates: []any{failed(codes.Unavailable, sameID, soon), succeeded}, wait: 5 * time.Second},
		"no details":              {creates: []any{failed(codes.Unknown), succeeded}, wait: time.Second},
		"somebody else's details": {creates: []any{failed(codes.Internal, others), succeeded}, wait: time.Second},
		"the caller's error":      {creates: []any{refused}, err: refused},
		"NOT_SENT":                {creates: []any{accepted, succeeded}, changes: []any{notSent}, wait: time.Second},
		"the watch ends":          {creates: []any{accepted, succeeded}, changes: []any{io.EOF}, wait: time.Second},
		"the watch fails":         {creates: []any{accepted, succeeded}, changes: []any{refused}, wait: time.Second},
		"time is over":            {creates: []any{failed(codes.Unavailable, sameID, later)}, wait: time.Minute, err: ErrNotFinal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				calls := &script{creates: test.creates, changes: test.changes}
				payout, err := Pay(ctx, calls, &pb.CreatePayoutRequest{})
				if !errors.Is(err, test.err) || (err == nil && payout.GetState() != succeeded) {
					t.Errorf("saw %v, %v", payout, err)
				}
				if waited := time.Since(began); waited != test.wait {
					t.Errorf("waited %v, not %v", waited, test.wait)
				}
				if len(calls.creates)+len(calls.changes) > 0 {
					t.Errorf("not asked for: %v %v", calls.creates, calls.changes)
				}
			})
		})
	}
}
