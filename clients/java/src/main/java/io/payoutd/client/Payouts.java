package io.payoutd.client;

import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.payoutd.v1.CreatePayoutRequest;
import io.payoutd.v1.Payout;
import io.payoutd.v1.PayoutServiceGrpc.PayoutServiceBlockingStub;
import io.payoutd.v1.PayoutState;
import io.payoutd.v1.WatchPayoutRequest;
import java.time.Duration;
import java.util.Optional;

/** The one rule for callers of payoutd: the same id until a final state. Short, to be used or copied. */
public final class Payouts {
    private Payouts() {}

    /** The time is over and the payout not known to be final: come back later, with the same id. */
    public static final class NotFinal extends Exception {
        private NotFinal(String thirdPartyId) {
            super(thirdPartyId + " is not known to be final: come back with the same id");
        }
    }

    /**
     * The detail of that kind in the error's google.rpc.Status.
     * Without one of ours, the error says nothing about the money.
     */
    public static <T extends Message> Optional<T> detail(StatusRuntimeException error, Class<T> kind) {
        try {
            for (Any one : StatusProto.fromThrowable(error).getDetailsList()) {
                if (one.is(kind)) return Optional.of(one.unpack(kind));
            }
        } catch (InvalidProtocolBufferException | IllegalArgumentException notOurs) {
            // Details that cannot be read say as little as none.
        }
        return Optional.empty();
    }

    /**
     * Asks for the payout until it is final, for at most that time, and returns it.
     *
     * @throws StatusRuntimeException where the same id cannot help: {@code retry} is not {@code same_id}
     * @throws NotFinal when the time is over
     */
    public static Payout pay(PayoutServiceBlockingStub payouts, CreatePayoutRequest request, Duration time)
            throws NotFinal, InterruptedException {
        Deadline end = Deadline.after(NANOSECONDS.convert(time), NANOSECONDS);
        while (!end.isExpired()) {
            long wait = SECONDS.toNanos(1);
            try {
                Deadline deadline = Deadline.after(35, SECONDS).minimum(end);
                Payout payout = payouts.withDeadline(deadline).createPayout(request).getPayout();
                if (isFinal(payout)) return payout;
                // A connection that is silently dead ends here, too.
                Deadline patience = Deadline.after(300, SECONDS).minimum(end);
                Optional<Payout> settled = watch(payouts.withDeadline(patience), payout);
                if (settled.isPresent()) return settled.get();
            } catch (StatusRuntimeException error) {
                if (isForTheCaller(error)) throw error;
                wait = detail(error, RetryInfo.class).map(Payouts::nanos).orElse(wait);
            }
            NANOSECONDS.sleep(Math.min(wait, end.timeRemaining(NANOSECONDS)));
        }
        throw new NotFinal(request.getThirdPartyId());
    }

    /** The final payout; empty where it has to be created again, or the stream ended early, however it ended. */
    private static Optional<Payout> watch(PayoutServiceBlockingStub payouts, Payout payout) {
        var request = WatchPayoutRequest.newBuilder()
                .setPid(payout.getPid())
                .setThirdPartyId(payout.getThirdPartyId())
                .setAfterRevision(payout.getRevision())
                .build();
        var context = Context.current().withCancellation();
        Context previous = context.attach();
        try {
            for (var changes = payouts.watchPayout(request); changes.hasNext(); ) {
                Payout change = changes.next().getPayout();
                if (isFinal(change)) return Optional.of(change);
                if (change.getState() == PayoutState.PAYOUT_STATE_NOT_SENT) break;
            }
        } catch (StatusRuntimeException early) {
            // It says nothing about the payout.
        } finally {
            context.detachAndCancel(previous, null);
        }
        return Optional.empty();
    }

    private static boolean isFinal(Payout payout) {
        return switch (payout.getState()) {
            case PAYOUT_STATE_REJECTED, PAYOUT_STATE_VOIDED, PAYOUT_STATE_SUCCEEDED -> true;
            case PAYOUT_STATE_FAILED, PAYOUT_STATE_DENIED -> true;
            default -> false;
        };
    }

    private static boolean isForTheCaller(StatusRuntimeException error) {
        return detail(error, ErrorInfo.class)
                .filter(info -> info.getDomain().equals("payout.v1"))
                .filter(info -> !info.getMetadataOrDefault("retry", "").equals("same_id"))
                .isPresent();
    }

    private static long nanos(RetryInfo retry) {
        var delay = retry.getRetryDelay();
        return NANOSECONDS.convert(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
    }
}
