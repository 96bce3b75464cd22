require "google/protobuf/well_known_types"
require "google/rpc/error_details_pb"
require "grpc"
require "payout/v1/payout_services_pb"

# The one rule for callers of payoutd: the same id until a final state. Short, to be used or copied.
module Payoutd
  FINAL = %i[
    PAYOUT_STATE_REJECTED PAYOUT_STATE_VOIDED PAYOUT_STATE_SUCCEEDED PAYOUT_STATE_FAILED PAYOUT_STATE_DENIED
  ].freeze

  # The time is over and the payout not known to be final: come back later, with the same id.
  class NotFinal < StandardError; end

  # The detail of that kind in the error's google.rpc.Status, or nil. Without one of ours, the error says nothing
  # about the money.
  def self.detail(error, kind)
    error.to_rpc_status&.details&.filter_map { |one| one.unpack(kind) }&.first
  end

  # Asks for the payout until it is final, for at most so many seconds, and returns it.
  #
  # Raises GRPC::BadStatus where the same id cannot help (+retry+ is not +same_id+), and NotFinal when the time is over.
  def self.pay(payouts, request, seconds: 86_400)
    finish = now + seconds
    while (left = finish - now).positive?
      wait = 1
      begin
        payout = payouts.create_payout(request, deadline: Time.now + [left, 35].min).payout
        return payout if FINAL.include?(payout.state)

        payout = watch(payouts, payout, finish - now)
        return payout if payout
      rescue GRPC::BadStatus => error
        info = detail(error, Google::Rpc::ErrorInfo)
        raise if info&.domain == "payout.v1" && info.metadata["retry"] != "same_id"

        pause = detail(error, Google::Rpc::RetryInfo)
        wait = pause.retry_delay.to_f if pause
      end
      sleep([wait, finish - now].min.clamp(0..))
    end
    raise NotFinal, request.third_party_id
  end

  # The final payout; nil where it has to be created again, or the stream ended early, however it ended.
  def self.watch(payouts, payout, left)
    request = Payout::V1::WatchPayoutRequest.new(
      pid: payout.pid, third_party_id: payout.third_party_id, after_revision: payout.revision
    )
    # To leave the block ends the call; so does, after a while, a connection that is silently dead.
    payouts.watch_payout(request, deadline: Time.now + [left, 300].min).each do |change|
      state = change.payout&.state
      return change.payout if FINAL.include?(state)
      return if state == :PAYOUT_STATE_NOT_SENT
    end
    nil
  rescue GRPC::BadStatus, GRPC::Core::CallError
    nil
  end

  def self.now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  private_class_method :watch, :now
end
