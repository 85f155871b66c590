// Connect's own client against streams: streams.mjs URL DESCRIPTORS connect|connect-json|grpc-web|grpc

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
const service = files.getService("stead.tck.v1.ActionModel");

const transport = {
  connect: () => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  "connect-json": () => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
  "grpc-web": () => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  grpc: () => createGrpcTransport({ baseUrl }),
}[protocol]();

const model = createClient(service, transport);
const reply = (message) => ({ steps: [{ step: { case: "reply", value: { message } } }] });
const fail = (message) => ({ steps: [{ step: { case: "fail", value: { message } } }] });

async function texts(stream) {
  const found = [];
  for await (const { message } of stream) found.push(message);
  return found;
}

const request = { groups: ["one", "two", "three"].map(reply) };
assert.deepEqual(await texts(model.processStreamedOut(request)), ["one", "two", "three"]);

await assert.rejects(
  texts(model.processStreamedOut({ groups: [reply("one"), fail("enough")] })),
  (error) => {
    assert(error instanceof ConnectError);
    assert.equal(error.code, Code.FailedPrecondition);
    assert.equal(error.rawMessage, "enough");
    return true;
  },
);

// gRPC-Web cannot stream requests.
if (protocol !== "grpc-web") {
  async function* requests() {
    for (const text of ["one", "two"]) yield { groups: [reply(text)] };
  }
  assert.equal((await model.processStreamedIn(requests())).message, "two");
  assert.deepEqual(await texts(model.processStreamed(requests())), ["one", "two"]);

  // A client that goes away.
  const abort = new AbortController();
  async function* endless() {
    yield { groups: [reply("one")] };
    await new Promise(() => {});
  }
  const stream = model.processStreamed(endless(), { signal: abort.signal });
  await assert.rejects(async () => {
    for await (const { message } of stream) {
      assert.equal(message, "one");
      abort.abort();
    }
  });
}

console.log("ok");
process.exit(0);
