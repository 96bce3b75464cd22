export * from "../gen/payout/v1/payout_pb.js";
export { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
export { NotFinal } from "./pay.js";
