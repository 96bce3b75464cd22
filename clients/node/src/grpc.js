import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Metadata, makeClientConstructor } from "@grpc/grpc-js";
import { StatusSchema } from "../gen/google/rpc/status_pb.js";
import { payWith } from "./pay.js";

/** @type {typeof import("./grpc.js").createClient} */
export const createClient = (service, address, credentials, options) => {
  const methods = service.methods.map((method) => [method.localName, definition(method)]);
  const ServiceClient = makeClientConstructor(Object.fromEntries(methods), service.typeName);
  return /** @type {any} */ (new ServiceClient(address, credentials, options));
};

/** @param {import("@bufbuild/protobuf").DescMethod} method */
function definition({ parent, name, methodKind, input, output }) {
  return {
    path: `/${parent.typeName}/${name}`,
    requestStream: methodKind === "client_streaming" || methodKind === "bidi_streaming",
    responseStream: methodKind === "server_streaming" || methodKind === "bidi_streaming",
    requestSerialize: (init) => Buffer.from(toBinary(input, create(input, init))),
    responseDeserialize: (bytes) => fromBinary(output, bytes),
  };
}

/** @type {typeof import("./grpc.js").detail} */
export const detail = (error, schema) => {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details = bytes ? fromBinary(StatusSchema, bytes).details : [];
  return details.map((one) => anyUnpack(one, schema)).find((found) => found);
};

/** @type {typeof import("./grpc.js").pay} */
export const pay = (payouts, request, seconds = 86_400) => {
  /** @type {import("./pay.js").Calls} */
  const calls = {
    create: (same, timeoutMs) =>
      new Promise((resolve, reject) => {
        payouts.createPayout(same, ready(), { deadline: Date.now() + timeoutMs }, (error, response) =>
          response ? resolve(response) : reject(error),
        );
      }),
    watch: (same, timeoutMs) => messages(payouts.watchPayout(same, ready(), { deadline: Date.now() + timeoutMs })),
    detail,
  };
  return payWith(calls, request, seconds);
};

/** Waits for a connection, through a restart; grpc-js does not take this from a service config. */
function ready() {
  return new Metadata({ waitForReady: true });
}

/**
 * The messages of the stream; the call ends when the iteration does.
 *
 * @template T
 * @param {import("@grpc/grpc-js").ClientReadableStream<T>} stream
 */
async function* messages(stream) {
  // A cancelled stream emits an error when nobody iterates any more.
  stream.on("error", () => {});
  try {
    yield* stream;
  } finally {
    stream.cancel();
  }
}
