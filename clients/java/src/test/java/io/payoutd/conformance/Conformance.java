package io.payoutd.conformance;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.MILLISECONDS;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.AbstractStub;
import io.payoutd.client.Payouts;
import io.payoutd.v1.CreatePayoutRequest;
import io.payoutd.v1.GetPayoutRequest;
import io.payoutd.v1.ListPayoutsRequest;
import io.payoutd.v1.OperatorServiceGrpc;
import io.payoutd.v1.PayoutServiceGrpc;
import io.payoutd.v1.PayoutServiceGrpc.PayoutServiceBlockingStub;
import io.payoutd.v1.ResolvePayoutRequest;
import io.payoutd.v1.SetIntakeRequest;
import io.payoutd.v1.WatchPayoutRequest;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.function.Function;

/** The conformance program of Java: clients/conformance/README.md says what it reads and prints. */
final class Conformance {
    private static final Gson JSON = new Gson();
    private static final PrintStream OUT = new PrintStream(System.out, true, UTF_8);

    private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    private final Channel channel;

    private Conformance(Channel channel) {
        this.channel = channel;
    }

    public static void main(String[] arguments) throws Exception {
        var grpc = Channel.class.getPackage().getImplementationVersion();
        say(Map.of("runtime", "Java " + System.getProperty("java.version") + ", grpc-java " + grpc));
        var program = new Conformance(ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().build());
        var lines = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            say(program.answer(JSON.fromJson(line, JsonObject.class)));
        }
        System.exit(0);
    }

    /** Makes the call in a context of its own, whose end cancels what is left of it. */
    private Map<String, ?> answer(JsonObject step) throws Exception {
        try (var context = Context.current().withCancellation()) {
            if (step.has("cancel_after_ms")) {
                timer.schedule(context::close, step.get("cancel_after_ms").getAsLong(), MILLISECONDS);
            }
            return context.call(() -> call(step));
        } catch (StatusRuntimeException error) {
            return Messages.failure(error);
        }
    }

    private Map<String, ?> call(JsonObject step) throws Exception {
        var payouts = timed(PayoutServiceGrpc.newBlockingStub(channel), step);
        var operator = timed(OperatorServiceGrpc.newBlockingStub(channel), step);
        var health = timed(HealthGrpc.newBlockingStub(channel), step);
        switch (step.get("op").getAsString()) {
            case "create" -> {
                var response = payouts.createPayout(Messages.read(step, CreatePayoutRequest.newBuilder()).build());
                return Messages.answer(response.getCid(), response.hasPayout() ? response.getPayout() : null);
            }
            case "get" -> {
                var response = payouts.getPayout(Messages.read(step, GetPayoutRequest.newBuilder()).build());
                return Map.of("code", "OK", "payout", Messages.shown(response.getPayout()));
            }
            case "list" -> {
                return list(payouts, Messages.read(step, ListPayoutsRequest.newBuilder()));
            }
            case "watch" -> {
                var changes = payouts.watchPayout(Messages.read(step, WatchPayoutRequest.newBuilder()).build());
                return events(step, changes, one -> one.hasPayout() ? Messages.shown(one.getPayout()) : null);
            }
            case "resolve" -> {
                var response = operator.resolvePayout(Messages.read(step, ResolvePayoutRequest.newBuilder()).build());
                return Map.of("code", "OK", "payout", Messages.shown(response.getPayout()));
            }
            case "set_intake" -> {
                var response = operator.setIntake(Messages.read(step, SetIntakeRequest.newBuilder()).build());
                return Map.of("code", "OK", "paused", response.getPaused());
            }
            case "pay" -> {
                var request = Messages.read(step, CreatePayoutRequest.newBuilder()).build();
                var payout = Payouts.pay(payouts, request, Duration.ofMillis(step.get("timeout_ms").getAsLong()));
                return Messages.answer(payout.getCid(), payout);
            }
            case "health" -> {
                return Map.of("code", "OK", "status", health.check(service(step)).getStatus().name());
            }
            case "health_watch" -> {
                return events(step, health.watch(service(step)), one -> one.getStatus().name());
            }
            default -> {
                return Map.of("code", "UNSUPPORTED", "why", "no such op");
            }
        }
    }

    private static <S extends AbstractStub<S>> S timed(S stub, JsonObject step) {
        return step.has("timeout_ms") ? stub.withDeadlineAfter(step.get("timeout_ms").getAsLong(), MILLISECONDS) : stub;
    }

    private static HealthCheckRequest service(JsonObject step) {
        return HealthCheckRequest.newBuilder().setService(step.get("service").getAsString()).build();
    }

    private static Map<String, ?> list(PayoutServiceBlockingStub payouts, ListPayoutsRequest.Builder request) {
        var found = new ArrayList<Map<String, String>>();
        do {
            var page = payouts.listPayouts(request.build());
            page.getPayoutsList().forEach(payout -> found.add(Messages.shown(payout)));
            request.setPageToken(page.getNextPageToken());
        } while (!request.getPageToken().isEmpty());
        return Map.of("code", "OK", "payouts", found);
    }

    /** Says each event; what is shown as null is none. */
    private static <T> Map<String, ?> events(JsonObject step, Iterator<T> changes, Function<T, ?> shown) {
        int left = step.has("stop_after") ? step.get("stop_after").getAsInt() : -1;
        while (left != 0 && changes.hasNext()) {
            var event = shown.apply(changes.next());
            if (event != null) {
                say(Map.of("event", event));
                left--;
            }
        }
        return Map.of("code", left == 0 ? "CANCELLED" : "OK");
    }

    private static void say(Map<String, ?> line) {
        OUT.println(JSON.toJson(line));
    }
}
