// The conformance program of Go: clients/conformance/README.md says what it reads and prints.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	payoutd "payoutd/go"
	pb "payoutd/go/payout/v1"
)

type step struct {
	Op            string        `json:"op"`
	Request       object        `json:"request"`
	Service       string        `json:"service"`
	TimeoutMS     time.Duration `json:"timeout_ms"`
	CancelAfterMS time.Duration `json:"cancel_after_ms"`
	StopAfter     int           `json:"stop_after"`
}

type caller struct {
	payouts  pb.PayoutServiceClient
	operator pb.OperatorServiceClient
	health   healthpb.HealthClient
}

func main() {
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	c := caller{pb.NewPayoutServiceClient(conn), pb.NewOperatorServiceClient(conn), healthpb.NewHealthClient(conn)}
	say(object{"runtime": fmt.Sprintf("Go %s, grpc-go %s", strings.TrimPrefix(runtime.Version(), "go"), grpc.Version)})
	steps := json.NewDecoder(os.Stdin)
	for {
		var s step
		if err := steps.Decode(&s); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		answer, err := c.take(s)
		if err != nil {
			answer = failure(err)
		}
		say(answer)
	}
}

func say(line object) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

// take makes the step's call within its time.
func (c caller) take(s step) (object, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if s.TimeoutMS > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.TimeoutMS*time.Millisecond)
		defer cancel()
	}
	if s.CancelAfterMS > 0 {
		time.AfterFunc(s.CancelAfterMS*time.Millisecond, cancel)
	}
	switch s.Op {
	case "create":
		return ask(ctx, s, &pb.CreatePayoutRequest{}, c.payouts.CreatePayout)
	case "get":
		return ask(ctx, s, &pb.GetPayoutRequest{}, c.payouts.GetPayout)
	case "list":
		return ask(ctx, s, &pb.ListPayoutsRequest{}, c.list)
	case "watch":
		return watch(ctx, s, &pb.WatchPayoutRequest{}, c.payouts.WatchPayout)
	case "resolve":
		return ask(ctx, s, &pb.ResolvePayoutRequest{}, c.operator.ResolvePayout)
	case "set_intake":
		return ask(ctx, s, &pb.SetIntakeRequest{}, c.operator.SetIntake)
	case "pay":
		return ask(ctx, s, &pb.CreatePayoutRequest{}, c.pay)
	case "health":
		s.Request = object{"service": s.Service}
		return ask(ctx, s, &healthpb.HealthCheckRequest{}, c.health.Check)
	case "health_watch":
		s.Request = object{"service": s.Service}
		return watch(ctx, s, &healthpb.HealthCheckRequest{}, c.health.Watch)
	}
	return nil, fmt.Errorf("no such op: %s", s.Op)
}

// list gathers every page's payouts.
func (c caller) list(
	ctx context.Context, request *pb.ListPayoutsRequest, _ ...grpc.CallOption,
) (*pb.ListPayoutsResponse, error) {
	all := &pb.ListPayoutsResponse{}
	for {
		page, err := c.payouts.ListPayouts(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Payouts = append(all.Payouts, page.Payouts...)
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return all, nil
		}
	}
}

func (c caller) pay(
	ctx context.Context, request *pb.CreatePayoutRequest, _ ...grpc.CallOption,
) (*pb.CreatePayoutResponse, error) {
	payout, err := payoutd.Pay(ctx, c.payouts, request)
	return &pb.CreatePayoutResponse{Cid: payout.GetCid(), Payout: payout}, err
}

type method[Q, R any] = func(context.Context, Q, ...grpc.CallOption) (R, error)

func ask[Q, R proto.Message](ctx context.Context, s step, request Q, call method[Q, R]) (object, error) {
	if err := read(s.Request, request); err != nil {
		return nil, err
	}
	response, err := call(ctx, request)
	if err != nil {
		return nil, err
	}
	return shown(response), nil
}

func watch[Q proto.Message, M any](
	ctx context.Context, s step, request Q, call method[Q, grpc.ServerStreamingClient[M]],
) (object, error) {
	if err := read(s.Request, request); err != nil {
		return nil, err
	}
	changes, err := call(ctx, request)
	if err != nil {
		return nil, err
	}
	for seen := 0; s.StopAfter == 0 || seen < s.StopAfter; {
		change, err := changes.Recv()
		if errors.Is(err, io.EOF) {
			return object{"code": "OK"}, nil
		} else if err != nil {
			return nil, err
		}
		if event := event(change); event != nil {
			say(object{"event": event})
			seen++
		}
	}
	// take cancels it on its way out.
	return object{"code": "CANCELLED"}, nil
}
