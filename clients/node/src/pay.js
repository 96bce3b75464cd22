// The one rule for callers of payoutd: the same id until a final state. Short, to be used or copied.
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { CreatePayoutRequestSchema, PayoutState, WatchPayoutRequestSchema } from "../gen/payout/v1/payout_pb.js";

const { REJECTED, VOIDED, SUCCEEDED, FAILED, DENIED } = PayoutState;
const FINAL = new Set([REJECTED, VOIDED, SUCCEEDED, FAILED, DENIED]);
const DAY_MS = 86_400_000;

export class NotFinal extends Error {
  name = "NotFinal";
}

/**
 * The loop behind `pay` of each library; `calls` are the library's.
 *
 * @type {typeof import("./pay.js").payWith}
 */
export async function payWith(calls, init, seconds) {
  const request = fixed(init);
  const end = performance.now() + seconds * 1000;
  // Whole milliseconds, at most eight digits: more does not fit into the header grpc-timeout.
  const left = () => Math.min(Math.ceil(end - performance.now()), DAY_MS);
  for (let time = left(); time > 0; time = left()) {
    let wait = 1000;
    try {
      const { payout } = await calls.create(request, Math.min(time, 35_000));
      if (payout && FINAL.has(payout.state)) return payout;
      const last = payout && (await watched(calls, payout, left()));
      if (last) return last;
    } catch (error) {
      const info = calls.detail(error, ErrorInfoSchema);
      if (info?.domain === "payout.v1" && info.metadata.retry !== "same_id") throw error;
      const delay = calls.detail(error, RetryInfoSchema)?.retryDelay;
      if (delay) wait = durationMs(delay);
    }
    await sleep(Math.max(0, Math.min(wait, left())));
  }
  throw new NotFinal(request.thirdPartyId);
}

/**
 * A copy, the same at every try. What can never be sent throws here, and is not tried all day.
 *
 * @param {import("./pay.js").PayoutInit} init
 */
function fixed(init) {
  const bytes = toBinary(CreatePayoutRequestSchema, create(CreatePayoutRequestSchema, init));
  const request = fromBinary(CreatePayoutRequestSchema, bytes);
  if (request.validateOnly) throw new TypeError("a request with validateOnly pays nothing");
  return request;
}

/**
 * The final payout; undefined where it has to be created again, or the stream ended early, however it ended.
 *
 * @param {import("./pay.js").Calls} calls
 * @param {import("./index.js").Payout} payout
 * @param {number} time
 */
async function watched(calls, { pid, thirdPartyId, revision }, time) {
  const id = /** @type {const} */ ({ case: "thirdPartyId", value: thirdPartyId });
  const request = create(WatchPayoutRequestSchema, { pid, id, afterRevision: revision });
  try {
    // A connection that is silently dead ends here, too.
    const patience = Math.min(Math.max(time, 1), 300_000);
    for await (const { payout } of calls.watch(request, patience)) {
      if (payout && FINAL.has(payout.state)) return payout;
      if (payout?.state === PayoutState.NOT_SENT) return undefined;
    }
  } catch {
    // Says nothing about the money: only another create does.
  }
  return undefined;
}
