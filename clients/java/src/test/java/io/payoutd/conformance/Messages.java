package io.payoutd.conformance;

import static java.util.Map.entry;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.Durations;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.BadRequest.FieldViolation;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.StatusRuntimeException;
import io.payoutd.client.Payouts;
import io.payoutd.v1.Payout;
import java.util.HashMap;
import java.util.Map;

/** Messages and errors, as the pack writes them. */
final class Messages {
    private static final String PREFIX = "PAYOUT_STATE_";

    private Messages() {}

    /** Fills the builder with the step's request. */
    static <B extends Message.Builder> B read(JsonObject step, B builder) throws InvalidProtocolBufferException {
        var request = step.getAsJsonObject("request");
        if (request.has("states")) {
            var states = new JsonArray();
            for (JsonElement state : request.getAsJsonArray("states")) states.add(PREFIX + state.getAsString());
            request.add("states", states);
        }
        JsonFormat.parser().merge(request.toString(), builder);
        return builder;
    }

    static Map<String, ?> answer(long cid, Payout payout) {
        var seen = new HashMap<String, Object>(Map.of("code", "OK", "cid", Long.toString(cid)));
        if (payout != null) seen.put("payout", shown(payout));
        return seen;
    }

    static Map<String, String> shown(Payout payout) {
        return Map.ofEntries(
                entry("pid", Long.toString(payout.getPid())),
                entry("third_party_id", payout.getThirdPartyId()),
                entry("cid", Long.toString(payout.getCid())),
                entry("state", payout.getState().name().substring(PREFIX.length())),
                entry("reason", payout.getReason()),
                entry("currency", payout.getCurrency()),
                entry("address", payout.getAddress()),
                entry("amount", payout.getAmount()),
                entry("remark", payout.getRemark()),
                entry("memo", payout.getMemo()),
                entry("revision", Long.toString(payout.getRevision())));
    }

    static Map<String, ?> failure(StatusRuntimeException error) {
        var seen = new HashMap<String, Object>(Map.of("code", error.getStatus().getCode().name()));
        Payouts.detail(error, ErrorInfo.class).ifPresent(info -> seen.putAll(Map.of(
                "reason", info.getReason(), "domain", info.getDomain(), "metadata", info.getMetadataMap())));
        Payouts.detail(error, BadRequest.class).ifPresent(bad -> seen.put("violations",
                bad.getFieldViolationsList().stream().map(FieldViolation::getField).toList()));
        Payouts.detail(error, RetryInfo.class).ifPresent(retry -> seen.put("retry_after_ms",
                Durations.toMillis(retry.getRetryDelay())));
        return seen;
    }
}
