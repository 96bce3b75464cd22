// gRPC-Web with its own client: creates a payout, follows it to its end, and reads an error.
import { createClient, ConnectError, Code } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { PayoutService, PayoutState } from "../../clients/node/gen/payout/v1/payout_pb.js";

const payouts = createClient(PayoutService, createGrpcWebTransport({ baseUrl: process.argv[2] }));
const order = { thirdPartyId: "web-1", currency: "195@195", address: "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS", amount: "1.1" };

const { cid } = await payouts.createPayout(order);
for await (const { payout } of payouts.watchPayout({ id: { case: "thirdPartyId", value: "web-1" } })) {
  if (payout?.state === PayoutState.SUCCEEDED) console.log("paid", cid, payout.cid);
}
try {
  await payouts.createPayout({ ...order, amount: "1.2" });
} catch (error) {
  const { code, details } = ConnectError.from(error);
  console.log("refused", Code[code], ...details.map((detail) => detail.type));
}
