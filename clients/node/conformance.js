// The conformance program of both stacks: clients/conformance/README.md says what it reads and prints.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fromJson } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import * as connect from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import * as api from "@payoutd/client";
import * as byConnect from "@payoutd/client/connect";
import * as byGrpc from "@payoutd/client/grpc";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "./gen/health/v1/health_pb.js";

const PREFIX = "PAYOUT_STATE_";

/** Each stack's clients of the three services, made callable in the same way, over one channel. */
const stacks = {
  grpc(address) {
    const insecure = grpc.credentials.createInsecure();
    const payouts = byGrpc.createClient(api.PayoutService, address, insecure);
    const channelOverride = payouts.getChannel();
    const callable = (client) => ({
      unary: (method, request, { timeoutMs, signal }) =>
        new Promise((resolve, reject) => {
          const done = (error, response) => (error ? reject(error) : resolve(response));
          const call = client[method](request, { deadline: deadline(timeoutMs) }, done);
          signal?.addEventListener("abort", () => call.cancel());
        }),
      stream: (method, request, { timeoutMs, signal }) => {
        const stream = client[method](request, { deadline: deadline(timeoutMs) });
        signal.addEventListener("abort", () => stream.on("error", () => {}).cancel());
        return stream;
      },
    });
    const other = (service) => callable(byGrpc.createClient(service, address, insecure, { channelOverride }));
    return {
      runtime: `grpc-js ${version("@grpc/grpc-js")}`,
      payouts: callable(payouts),
      operator: other(api.OperatorService),
      health: other(Health),
      pay: (request, seconds) => byGrpc.pay(payouts, request, seconds),
      detail: byGrpc.detail,
    };
  },
  connect(address) {
    const transport = createGrpcTransport({ baseUrl: `http://${address}` });
    const callable = (service) => {
      const client = connect.createClient(service, transport);
      const call = (method, request, options) => client[method](request, options);
      return { unary: call, stream: call };
    };
    return {
      runtime: `Connect ${version("@connectrpc/connect-node")}`,
      payouts: callable(api.PayoutService),
      operator: callable(api.OperatorService),
      health: callable(Health),
      pay: (request, seconds) => byConnect.pay(connect.createClient(api.PayoutService, transport), request, seconds),
      detail: (error, schema) => error.findDetails(schema)[0],
    };
  },
};

function deadline(timeoutMs) {
  return timeoutMs === undefined ? Infinity : Date.now() + timeoutMs;
}

function version(name) {
  return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), "utf8")).version;
}

/** The message of that kind; protobuf-es reads the proto's own names, and 64-bit integers from texts. */
function message(schema, { states, ...fields }) {
  return fromJson(schema, states ? { ...fields, states: states.map((state) => PREFIX + state) } : fields);
}

function shown(payout) {
  const { pid, thirdPartyId, cid, state, reason, currency, address, amount, remark, memo, revision } = payout;
  const renamed = { third_party_id: thirdPartyId, state: api.PayoutState[state], revision: String(revision) };
  return { pid, cid, reason, currency, address, amount, remark, memo, ...renamed };
}

function answer({ cid, payout }) {
  return { code: "OK", cid, payout: payout && shown(payout) };
}

function failure(error, detail) {
  const info = detail(error, api.ErrorInfoSchema);
  const delay = detail(error, api.RetryInfoSchema)?.retryDelay;
  return {
    code: grpc.status[error.code],
    reason: info?.reason,
    domain: info?.domain,
    metadata: info?.metadata,
    violations: detail(error, api.BadRequestSchema)?.fieldViolations.map(({ field }) => field),
    retry_after_ms: delay && durationMs(delay),
  };
}

/** Each makes one step's call. */
const calls = {
  async create({ payouts }, { request, timeout_ms: timeoutMs, cancel_after_ms: cancelAfter }) {
    const signal = cancelAfter === undefined ? undefined : AbortSignal.timeout(cancelAfter);
    return answer(await payouts.unary("createPayout", message(api.CreatePayoutRequestSchema, request), { timeoutMs, signal }));
  },
  async get({ payouts }, { request, timeout_ms: timeoutMs }) {
    return answer(await payouts.unary("getPayout", message(api.GetPayoutRequestSchema, request), { timeoutMs }));
  },
  async list({ payouts }, { request: fields, timeout_ms: timeoutMs }) {
    const request = message(api.ListPayoutsRequestSchema, fields);
    const found = [];
    do {
      const page = await payouts.unary("listPayouts", request, { timeoutMs });
      found.push(...page.payouts.map(shown));
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
    return { code: "OK", payouts: found };
  },
  watch({ payouts }, step) {
    const request = message(api.WatchPayoutRequestSchema, step.request);
    return events(payouts, "watchPayout", request, step, ({ payout }) => payout && shown(payout));
  },
  async resolve({ operator }, { request, timeout_ms: timeoutMs }) {
    return answer(await operator.unary("resolvePayout", message(api.ResolvePayoutRequestSchema, request), { timeoutMs }));
  },
  async set_intake({ operator }, { request, timeout_ms: timeoutMs }) {
    const { paused } = await operator.unary("setIntake", message(api.SetIntakeRequestSchema, request), { timeoutMs });
    return { code: "OK", paused };
  },
  async pay({ pay }, { request, timeout_ms: timeoutMs }) {
    const payout = await pay(message(api.CreatePayoutRequestSchema, request), timeoutMs / 1000);
    return answer({ cid: payout.cid, payout });
  },
  async health({ health }, { service, timeout_ms: timeoutMs }) {
    const { status } = await health.unary("check", { service }, { timeoutMs });
    return { code: "OK", status: ServingStatus[status] };
  },
  health_watch({ health }, step) {
    return events(health, "watch", { service: step.service }, step, ({ status }) => ServingStatus[status]);
  },
};

/** Tells each event, until the stream's end or the step's. */
async function events(client, method, request, { timeout_ms: timeoutMs, stop_after: stopAfter }, event) {
  const stop = new AbortController();
  let number = 0;
  for await (const change of client.stream(method, request, { timeoutMs, signal: stop.signal })) {
    const seen = event(change);
    if (seen === undefined) continue;
    say({ event: seen });
    if (++number === stopAfter) {
      stop.abort();
      return { code: "CANCELLED" };
    }
  }
  return { code: "OK" };
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const [stackName, address] = process.argv.slice(2);
const stack = stacks[stackName](address);
say({ runtime: `Node ${process.versions.node}, ${stack.runtime}` });
for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  try {
    say(await calls[step.op](stack, step));
  } catch (error) {
    if (typeof error.code !== "number") throw error;
    say(failure(error, stack.detail));
  }
}
