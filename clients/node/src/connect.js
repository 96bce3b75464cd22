import { ConnectError } from "@connectrpc/connect";
import { payWith } from "./pay.js";

/** @type {typeof import("./connect.js").pay} */
export function pay(payouts, request, seconds = 86_400) {
  return payWith(
    {
      create: (same, timeoutMs) => payouts.createPayout(same, { timeoutMs }),
      watch: (same, timeoutMs) => messages(payouts, same, timeoutMs),
      detail: (error, schema) => ConnectError.from(error).findDetails(schema)[0],
    },
    request,
    seconds,
  );
}

/**
 * The messages of the watch. Connect leaves it to a signal to end the call when the iteration ends; its own timer would go
 * on, and keep the process.
 *
 * @param {import("@connectrpc/connect").Client<typeof import("./index.js").PayoutService>} payouts
 * @param {import("./index.js").WatchPayoutRequest} request
 * @param {number} timeoutMs
 */
async function* messages(payouts, request, timeoutMs) {
  const ended = new AbortController();
  try {
    yield* payouts.watchPayout(request, { signal: AbortSignal.any([ended.signal, AbortSignal.timeout(timeoutMs)]) });
  } finally {
    ended.abort();
  }
}
