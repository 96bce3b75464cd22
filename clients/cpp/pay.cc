#include "payoutd/pay.h"

#include <algorithm>
#include <thread>

#include <google/protobuf/util/time_util.h>

namespace payoutd {
namespace {

using google::protobuf::util::TimeUtil;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::system_clock;
namespace pb = payout::v1;

bool Final(const pb::Payout& payout) {
  switch (payout.state()) {
    case pb::PAYOUT_STATE_REJECTED:
    case pb::PAYOUT_STATE_VOIDED:
    case pb::PAYOUT_STATE_SUCCEEDED:
    case pb::PAYOUT_STATE_FAILED:
    case pb::PAYOUT_STATE_DENIED:
      return true;
    default:
      return false;
  }
}

// Follows the payout until it is final. False where it has to be created again, or the stream ended early, however it ended.
bool Watch(pb::PayoutService::StubInterface& payouts, system_clock::time_point deadline, pb::Payout* payout) {
  pb::WatchPayoutRequest request;
  request.set_pid(payout->pid());
  request.set_third_party_id(payout->third_party_id());
  request.set_after_revision(payout->revision());
  grpc::ClientContext context;
  // A connection that is silently dead ends here, too.
  context.set_deadline(std::min(deadline, system_clock::now() + seconds(300)));
  const auto changes = payouts.WatchPayout(&context, request);
  pb::WatchPayoutResponse change;
  bool final = false;
  while (!final && changes->Read(&change) && change.payout().state() != pb::PAYOUT_STATE_NOT_SENT) {
    final = Final(change.payout());
  }
  context.TryCancel();
  changes->Finish();
  if (final) *payout = change.payout();
  return final;
}

}  // namespace

grpc::Status Pay(pb::PayoutService::StubInterface& payouts, const pb::CreatePayoutRequest& request,
                 system_clock::time_point deadline, pb::Payout* payout) {
  while (system_clock::now() < deadline) {
    grpc::ClientContext context;
    context.set_deadline(std::min(deadline, system_clock::now() + seconds(35)));
    pb::CreatePayoutResponse response;
    const grpc::Status status = payouts.CreatePayout(&context, request, &response);
    if (status.ok() && (Final(response.payout()) || Watch(payouts, deadline, response.mutable_payout()))) {
      *payout = response.payout();
      return status;
    }
    auto info = Detail<google::rpc::ErrorInfo>(status);
    if (info && info->domain() == "payout.v1" && (*info->mutable_metadata())["retry"] != "same_id") return status;
    milliseconds wait = seconds(1);
    if (const auto retry = Detail<google::rpc::RetryInfo>(status)) {
      wait = milliseconds(TimeUtil::DurationToMilliseconds(retry->retry_delay()));
    }
    std::this_thread::sleep_until(std::min(deadline, system_clock::now() + wait));
  }
  return {grpc::StatusCode::DEADLINE_EXCEEDED, request.third_party_id() + " is not known to be final: the same id, later"};
}

}  // namespace payoutd
