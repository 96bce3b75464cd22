import type { Client } from "@connectrpc/connect";
import type { Payout, PayoutService } from "../gen/payout/v1/payout_pb.js";
import type { PayoutInit } from "./pay.js";

/**
 * Asks for the payout until it is final, for at most so many seconds (a day), and returns it.
 *
 * Throws ConnectError where the same id cannot help (`retry` is not `same_id`), and NotFinal when the time is over.
 */
export function pay(payouts: Client<typeof PayoutService>, request: PayoutInit, seconds?: number): Promise<Payout>;
