// Connect's own client against the cart: connect.mjs URL DESCRIPTORS connect|connect-json|grpc-web|grpc

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

const [baseUrl, descriptors, protocol] = process.argv.slice(2);
const files = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const service = files.getService("com.example.shoppingcart.ShoppingCart");

const transport = {
  connect: () => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  "connect-json": () => createConnectTransport({ baseUrl, httpVersion: "2" }),
  "grpc-web": () => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  grpc: () => createGrpcTransport({ baseUrl }),
}[protocol]();

const cart = createClient(service, transport);
const userId = `node-${protocol}`;

await cart.addItem({ userId, productId: "kettle", name: "Kettle", quantity: 1 });
const headers = { "idempotency-key": "tea-once" };
for (let round = 0; round < 2; round++) {
  await cart.addItem({ userId, productId: "tea", name: "Tea", quantity: 3 }, { headers });
}
const { items } = await cart.getCart({ userId });
assert.deepEqual(
  items.map((item) => [item.productId, item.quantity]),
  [["kettle", 1], ["tea", 3]],
);

await assert.rejects(cart.removeItem({ userId, productId: "milk" }), (error) => {
  assert(error instanceof ConnectError);
  assert.equal(error.code, Code.NotFound);
  assert.match(error.rawMessage, /milk/);
  return true;
});

console.log("ok");
process.exit(0);
