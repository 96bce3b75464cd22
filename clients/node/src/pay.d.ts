import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type {
  CreatePayoutRequest, CreatePayoutRequestSchema, CreatePayoutResponse, Payout, WatchPayoutRequest, WatchPayoutResponse,
} from "../gen/payout/v1/payout_pb.js";

export type PayoutInit = MessageInitShape<typeof CreatePayoutRequestSchema>;

/** What the one rule needs of a gRPC library. */
export interface Calls {
  create(request: CreatePayoutRequest, timeoutMs: number): Promise<CreatePayoutResponse>;
  /** Ends its call when the iteration ends. */
  watch(request: WatchPayoutRequest, timeoutMs: number): AsyncIterable<WatchPayoutResponse>;
  /** The detail of that kind in the error's google.rpc.Status. */
  detail<D extends DescMessage>(error: unknown, schema: D): MessageShape<D> | undefined;
}

/** The time is over and the payout not known to be final: come back later, with the same id. */
export class NotFinal extends Error {}

export function payWith(calls: Calls, init: PayoutInit, seconds: number): Promise<Payout>;
