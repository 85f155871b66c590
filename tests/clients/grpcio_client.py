"""grpcio against the cart, with nothing but server reflection to know it by."""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "com.example.shoppingcart.ShoppingCart"

channel = grpc.insecure_channel(sys.argv[1])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
service = pool.FindServiceByName(SERVICE)


def call(method, metadata=(), **fields):
    descriptor = service.FindMethodByName(method)
    request = GetMessageClass(descriptor.input_type)(**fields)
    stub = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(descriptor.output_type).FromString,
    )
    return stub(request, metadata=metadata, timeout=20)


for _ in range(2):
    call(
        "AddItem",
        metadata=[("idempotency-key", "python-1")],
        user_id="py",
        product_id="kettle",
        name="Kettle",
        quantity=2,
    )
cart = call("GetCart", user_id="py")
assert [(item.product_id, item.quantity) for item in cart.items] == [("kettle", 2)], cart

try:
    call("RemoveItem", user_id="py", product_id="milk")
    raise SystemExit("removing what is not there was not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    assert "milk" in error.details(), error

try:
    channel.unary_unary(f"/{SERVICE}/Fly")(b"", timeout=20)
    raise SystemExit("an unknown method was not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

print("ok")
