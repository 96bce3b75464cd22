import type { DescMessage, DescMethodServerStreaming, DescMethodUnary, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type {
  CallOptions, ChannelCredentials, Client, ClientOptions, ClientReadableStream, ClientUnaryCall, Metadata, ServiceError, requestCallback,
} from "@grpc/grpc-js";
import type { Payout, PayoutService } from "../gen/payout/v1/payout_pb.js";
import type { PayoutInit } from "./pay.js";

interface Unary<I extends DescMessage, O extends DescMessage> {
  (request: MessageInitShape<I>, callback: requestCallback<MessageShape<O>>): ClientUnaryCall;
  (request: MessageInitShape<I>, options: Metadata | CallOptions, callback: requestCallback<MessageShape<O>>): ClientUnaryCall;
  (request: MessageInitShape<I>, metadata: Metadata, options: CallOptions, callback: requestCallback<MessageShape<O>>): ClientUnaryCall;
}

interface ServerStreaming<I extends DescMessage, O extends DescMessage> {
  (request: MessageInitShape<I>, options?: Metadata | CallOptions): ClientReadableStream<MessageShape<O>>;
  (request: MessageInitShape<I>, metadata: Metadata, options?: CallOptions): ClientReadableStream<MessageShape<O>>;
}

/** grpc-js's own kind of client, with the service's methods. */
export type ServiceClient<S extends DescService> = Client & {
  [M in keyof S["method"]]: S["method"][M] extends DescMethodUnary<infer I, infer O> ? Unary<I, O>
    : S["method"][M] extends DescMethodServerStreaming<infer I, infer O> ? ServerStreaming<I, O>
    : never;
};

/** grpc-js's client of a service that protobuf-es has generated. */
export function createClient<S extends DescService>(
  service: S, address: string, credentials: ChannelCredentials, options?: ClientOptions,
): ServiceClient<S>;

/** The detail of that kind in the error's google.rpc.Status. Without one of ours, the error says nothing about the money. */
export function detail<D extends DescMessage>(error: any, schema: D): MessageShape<D> | undefined;

/**
 * Asks for the payout until it is final, for at most so many seconds (a day), and returns it.
 *
 * Throws grpc-js's ServiceError where the same id cannot help (`retry` is not `same_id`), and NotFinal when the time is over.
 */
export function pay(payouts: ServiceClient<typeof PayoutService>, request: PayoutInit, seconds?: number): Promise<Payout>;
