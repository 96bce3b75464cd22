package main

import (
	"encoding/json"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	payoutd "payoutd/go"
	pb "payoutd/go/payout/v1"
)

const prefix = "PAYOUT_STATE_"

type object map[string]any

// read fills the message; protojson takes 64-bit integers as texts, but wants states with their prefix.
func read(fields object, message proto.Message) error {
	if states, ok := fields["states"].([]any); ok {
		for i, state := range states {
			states[i] = prefix + state.(string)
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(text, message)
}

func shown(response proto.Message) object {
	line := object{"code": "OK"}
	switch response := response.(type) {
	case *pb.ListPayoutsResponse:
		payouts := []object{}
		for _, payout := range response.Payouts {
			payouts = append(payouts, fields(payout))
		}
		line["payouts"] = payouts
	case *pb.SetIntakeResponse:
		line["paused"] = response.Paused
	case *healthpb.HealthCheckResponse:
		line["status"] = response.Status.String()
	case interface{ GetPayout() *pb.Payout }:
		if payout := response.GetPayout(); payout != nil {
			line["payout"] = fields(payout)
		}
	}
	if created, ok := response.(*pb.CreatePayoutResponse); ok {
		line["cid"] = strconv.FormatInt(created.Cid, 10)
	}
	return line
}

// event is nil for a heartbeat.
func event(change any) any {
	switch change := change.(type) {
	case *pb.WatchPayoutResponse:
		if change.Payout != nil {
			return fields(change.Payout)
		}
	case *healthpb.HealthCheckResponse:
		return change.Status.String()
	}
	return nil
}

func fields(payout *pb.Payout) object {
	return object{
		"pid":            strconv.FormatInt(payout.Pid, 10),
		"third_party_id": payout.ThirdPartyId,
		"cid":            strconv.FormatInt(payout.Cid, 10),
		"state":          strings.TrimPrefix(payout.State.String(), prefix),
		"reason":         payout.Reason,
		"currency":       payout.Currency,
		"address":        payout.Address,
		"amount":         payout.Amount,
		"remark":         payout.Remark,
		"memo":           payout.Memo,
		"revision":       strconv.FormatInt(payout.Revision, 10),
	}
}

func failure(err error) object {
	failed, ok := status.FromError(err)
	if !ok {
		return object{"code": "UNSUPPORTED", "why": err.Error()}
	}
	line := object{"code": code.Code(failed.Code()).String()}
	if info := payoutd.Detail[*errdetails.ErrorInfo](err); info != nil {
		line["reason"], line["domain"], line["metadata"] = info.Reason, info.Domain, info.Metadata
	}
	if bad := payoutd.Detail[*errdetails.BadRequest](err); bad != nil {
		violations := []string{}
		for _, violation := range bad.FieldViolations {
			violations = append(violations, violation.Field)
		}
		line["violations"] = violations
	}
	if retry := payoutd.Detail[*errdetails.RetryInfo](err); retry != nil {
		line["retry_after_ms"] = retry.RetryDelay.AsDuration().Milliseconds()
	}
	return line
}
