"""grpcio against streams, with nothing but server reflection to know them by."""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "stead.tck.v1.ActionModel"

channel = grpc.insecure_channel(sys.argv[1])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
service = pool.FindServiceByName(SERVICE)
descriptor = service.FindMethodByName("ProcessStreamed")
Request = GetMessageClass(descriptor.input_type)
Response = GetMessageClass(descriptor.output_type)


def method(name, shape):
    return getattr(channel, shape)(
        f"/{SERVICE}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=Response.FromString,
    )


def asking(*texts):
    request = Request()
    for text in texts:
        request.groups.add().steps.add().reply.message = text
    return request


unary = method("ProcessUnary", "unary_unary")
assert unary(asking("one"), timeout=20).message == "one"

streamed_in = method("ProcessStreamedIn", "stream_unary")
assert streamed_in(iter([asking("one"), asking("two")]), timeout=20).message == "two"
assert streamed_in(iter([]), timeout=20).message == ""

streamed_out = method("ProcessStreamedOut", "unary_stream")
replies = [reply.message for reply in streamed_out(asking("one", "two"), timeout=20)]
assert replies == ["one", "two"], replies

streamed = method("ProcessStreamed", "stream_stream")
replies = [r.message for r in streamed(iter([asking("one"), asking("two", "three")]), timeout=20)]
assert replies == ["one", "two", "three"], replies

failing = asking("one")
failing.groups.add().steps.add().fail.message = "enough"
replies = []
try:
    for reply in streamed(iter([failing]), timeout=20):
        replies.append(reply.message)
    raise SystemExit("a failure was not told")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "enough", error
assert replies == ["one"], replies

print("ok")
