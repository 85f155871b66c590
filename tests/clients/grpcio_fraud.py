"""grpcio against the fraud check: payments and verdicts on one stream, each verdict before the next payment."""

import queue
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "com.example.fraud.FraudCheck"

channel = grpc.insecure_channel(sys.argv[1])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
check = pool.FindServiceByName(SERVICE).FindMethodByName("Check")
Payment = GetMessageClass(check.input_type)
Verdict = GetMessageClass(check.output_type)


class Stream:
    """One call of Check."""

    def __init__(self):
        self.payments = queue.Queue()
        self.verdicts = channel.stream_stream(
            f"/{SERVICE}/Check",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=Verdict.FromString,
        )(iter(self.payments.get, None), timeout=20)

    def pay(self, payment_id, card, cents):
        self.payments.put(Payment(payment_id=payment_id, card=card, cents=cents))
        verdict = next(self.verdicts)
        assert verdict.payment_id == payment_id, verdict
        return verdict

    def end(self):
        self.payments.put(None)
        assert next(self.verdicts, None) is None


first = Stream()
for number in range(5):
    assert not first.pay(f"p{number}", "card", 100).suspicious
sixth = first.pay("p5", "card", 100)
assert sixth.suspicious and "6 payments" in sixth.reason, sixth
# Another card has nothing to do with it, nor has a payment that comes again.
assert not first.pay("q0", "other", 100_000).suspicious
assert not first.pay("q0", "other", 100_000).suspicious
much = first.pay("q1", "other", 1)
assert much.suspicious and "100001 cents" in much.reason, much
first.end()

# What is known of a card outlives the stream, and two streams see the same.
second, third = Stream(), Stream()
assert second.pay("p6", "card", 1).suspicious
assert third.pay("p7", "card", 1).reason == "8 payments within ten minutes"
second.end()

# A payment that is refused ends its stream, and says why.
try:
    third.pay("", "card", 1)
    raise SystemExit("a payment without an id was taken")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    assert error.details() == "a payment needs a payment_id", error

print("ok")
