// The one rule for callers of payoutd: the same id until a final state. Short, to be used or copied.

#pragma once

#include <chrono>
#include <optional>

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/error_details.h>
#include <payout/v1/payout.grpc.pb.h>

namespace payoutd {

/// The detail of that kind, ErrorInfo for example, in the error's google.rpc.Status. Without one of ours, the error says
/// nothing about the money.
template <class Message>
std::optional<Message> Detail(const grpc::Status& error) {
  google::rpc::Status rich;
  Message found;
  if (grpc::ExtractErrorDetails(error, &rich).ok()) {
    for (const auto& detail : rich.details()) {
      if (detail.UnpackTo(&found)) return found;
    }
  }
  return std::nullopt;
}

/// Asks for the payout until it is final, and puts it into `payout`.
///
/// Blocks, at most until the deadline. OK is only said of a final payout. Every other status leaves `payout` as it was:
/// DEADLINE_EXCEEDED when the time is over and the payout not known to be final: come back later, with the same id;
/// otherwise the error of CreatePayout that the same id cannot help, as its ErrorInfo says (`retry` is not `same_id`).
[[nodiscard]] grpc::Status Pay(payout::v1::PayoutService::StubInterface& payouts,
                               const payout::v1::CreatePayoutRequest& request,
                               std::chrono::system_clock::time_point deadline, payout::v1::Payout* payout);

}  // namespace payoutd
