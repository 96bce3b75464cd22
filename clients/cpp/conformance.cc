// The conformance program of C++: clients/conformance/README.md says what it reads and prints.

#include <future>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>

#include <absl/status/status.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <grpc/health/v1/health.grpc.pb.h>
#include <nlohmann/json.hpp>
#include <payoutd/pay.h>

namespace pb = payout::v1;
namespace health = grpc::health::v1;
using std::chrono::milliseconds;
using std::chrono::system_clock;
using Json = nlohmann::json;

const std::string kPrefix = "PAYOUT_STATE_";

void Say(const Json& line) { std::cout << line.dump() << std::endl; }

system_clock::time_point Deadline(const Json& step) {
  if (!step.contains("timeout_ms")) return system_clock::time_point::max();
  return system_clock::now() + milliseconds(step["timeout_ms"]);
}

// protobuf's own JSON takes 64-bit integers as texts, and states with their prefix.
template <class Request>
Request RequestOf(const Json& step) {
  Json fields = step.contains("request") ? step["request"] : Json{{"service", step["service"]}};
  if (fields.contains("states")) {
    for (auto& state : fields["states"]) state = kPrefix + state.get<std::string>();
  }
  Request request;
  const auto parsed = google::protobuf::util::JsonStringToMessage(fields.dump(), &request);
  if (!parsed.ok()) throw std::invalid_argument(parsed.ToString());
  return request;
}

Json Shown(const pb::Payout& payout) {
  return {
      {"pid", std::to_string(payout.pid())},
      {"third_party_id", payout.third_party_id()},
      {"cid", std::to_string(payout.cid())},
      {"state", pb::PayoutState_Name(payout.state()).substr(kPrefix.size())},
      {"reason", payout.reason()},
      {"currency", payout.currency()},
      {"address", payout.address()},
      {"amount", payout.amount()},
      {"remark", payout.remark()},
      {"memo", payout.memo()},
      {"revision", std::to_string(payout.revision())},
  };
}

Json Failure(const grpc::Status& status) {
  // The codes of absl are those of gRPC.
  Json seen{{"code", absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()))}};
  if (const auto info = payoutd::Detail<google::rpc::ErrorInfo>(status)) {
    seen["reason"] = info->reason();
    seen["domain"] = info->domain();
    seen["metadata"] = Json::object();
    for (const auto& [key, value] : info->metadata()) seen["metadata"][key] = value;
  }
  if (const auto bad = payoutd::Detail<google::rpc::BadRequest>(status)) {
    seen["violations"] = Json::array();
    for (const auto& violation : bad->field_violations()) seen["violations"].push_back(violation.field());
  }
  if (const auto retry = payoutd::Detail<google::rpc::RetryInfo>(status)) {
    seen["retry_after_ms"] = google::protobuf::util::TimeUtil::DurationToMilliseconds(retry->retry_delay());
  }
  return seen;
}

// What an OK says besides its code.
template <class Response>
Json Answer(const Response& response) {
  return response.has_payout() ? Json{{"payout", Shown(response.payout())}} : Json::object();
}

Json Answer(const pb::CreatePayoutResponse& response) {
  Json seen = Answer<>(response);
  seen["cid"] = std::to_string(response.cid());
  return seen;
}

Json Answer(const pb::SetIntakeResponse& response) { return {{"paused", response.paused()}}; }

Json Answer(const health::HealthCheckResponse& response) {
  return {{"status", health::HealthCheckResponse::ServingStatus_Name(response.status())}};
}

Json Ok(Json seen) {
  seen["code"] = "OK";
  return seen;
}

template <class Stub, class Request, class Response>
Json Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Json& step) {
  grpc::ClientContext context;
  context.set_deadline(Deadline(step));
  std::future<void> timer;  // joined before the context goes
  if (step.contains("cancel_after_ms")) {
    timer = std::async(std::launch::async, [&context, after = milliseconds(step["cancel_after_ms"])] {
      std::this_thread::sleep_for(after);
      context.TryCancel();
    });
  }
  Response response;
  const grpc::Status status = (stub.*method)(&context, RequestOf<Request>(step), &response);
  return status.ok() ? Ok(Answer(response)) : Failure(status);
}

// `shown` makes an event of a message, or null where it is none.
template <class Stub, class Request, class Response, class Shown>
Json Follow(Stub& stub, std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(grpc::ClientContext*, const Request&),
            const Json& step, Shown shown) {
  grpc::ClientContext context;
  context.set_deadline(Deadline(step));
  const auto stream = (stub.*method)(&context, RequestOf<Request>(step));
  Response response;
  int left = step.value("stop_after", -1);  // below 0 for ever
  while (left != 0 && stream->Read(&response)) {
    const Json event = shown(response);
    if (event.is_null()) continue;
    Say({{"event", event}});
    if (--left == 0) context.TryCancel();
  }
  const grpc::Status status = stream->Finish();
  return status.ok() ? Ok(Json::object()) : Failure(status);
}

class Caller {
 public:
  explicit Caller(const std::shared_ptr<grpc::Channel>& channel)
      : payouts_(channel), operator_(channel), health_(channel) {}

  // Makes the step's call.
  Json Make(const Json& step) {
    const std::string op = step["op"];
    if (op == "create") return Call(payouts_, &pb::PayoutService::Stub::CreatePayout, step);
    if (op == "get") return Call(payouts_, &pb::PayoutService::Stub::GetPayout, step);
    if (op == "list") return List(step);
    if (op == "watch") {
      return Follow(payouts_, &pb::PayoutService::Stub::WatchPayout, step, [](const auto& response) {
        return response.has_payout() ? Shown(response.payout()) : Json();
      });
    }
    if (op == "resolve") return Call(operator_, &pb::OperatorService::Stub::ResolvePayout, step);
    if (op == "set_intake") return Call(operator_, &pb::OperatorService::Stub::SetIntake, step);
    if (op == "pay") return Pay(step);
    if (op == "health") return Call(health_, &health::Health::Stub::Check, step);
    if (op == "health_watch") {
      return Follow(health_, &health::Health::Stub::Watch, step,
                    [](const auto& response) { return Answer(response)["status"]; });
    }
    return {{"code", "UNSUPPORTED"}, {"why", "no such op: " + op}};
  }

 private:
  Json List(const Json& step) {
    auto request = RequestOf<pb::ListPayoutsRequest>(step);
    Json payouts = Json::array();
    do {
      grpc::ClientContext context;
      context.set_deadline(Deadline(step));
      pb::ListPayoutsResponse page;
      const grpc::Status status = payouts_.ListPayouts(&context, request, &page);
      if (!status.ok()) return Failure(status);
      for (const auto& payout : page.payouts()) payouts.push_back(Shown(payout));
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    return Ok({{"payouts", payouts}});
  }

  Json Pay(const Json& step) {
    pb::Payout payout;
    const auto request = RequestOf<pb::CreatePayoutRequest>(step);
    const grpc::Status status = payoutd::Pay(payouts_, request, Deadline(step), &payout);
    return status.ok() ? Ok({{"cid", std::to_string(payout.cid())}, {"payout", Shown(payout)}}) : Failure(status);
  }

  pb::PayoutService::Stub payouts_;
  pb::OperatorService::Stub operator_;
  health::Health::Stub health_;
};

int main(int, char** arguments) {
  Say({{"runtime", std::string("C++17, GCC ") + __VERSION__ + ", grpc++ " + grpc::Version()}});
  Caller caller(grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials()));
  for (std::string line; std::getline(std::cin, line);) {
    Say(caller.Make(Json::parse(line)));
  }
}
