// Connect's own client against the fraud check: fraud.mjs URL DESCRIPTORS connect|connect-json|grpc

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";

const [baseUrl, descriptors, protocol] = process.argv.slice(2);
const files = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const transport = {
  connect: () => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  "connect-json": () => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
  grpc: () => createGrpcTransport({ baseUrl }),
}[protocol]();
const fraud = createClient(files.getService("com.example.fraud.FraudCheck"), transport);

// One call of Check: each payment goes out when the verdict on the one before is there.
function stream() {
  const waiting = [];
  let wake = () => {};
  let ended = false;
  async function* payments() {
    for (;;) {
      while (waiting.length > 0) yield waiting.shift();
      if (ended) return;
      await new Promise((resolve) => (wake = resolve));
    }
  }
  const verdicts = fraud.check(payments())[Symbol.asyncIterator]();
  return {
    async pay(paymentId, card, cents) {
      waiting.push({ paymentId, card, cents: BigInt(cents) });
      wake();
      const { value } = await verdicts.next();
      assert.equal(value.paymentId, paymentId);
      return value;
    },
    async end() {
      ended = true;
      wake();
      assert.equal((await verdicts.next()).done, true);
    },
  };
}

const first = stream();
for (let number = 0; number < 5; number++) {
  assert.equal((await first.pay(`p${number}`, "card", 100)).suspicious, false);
}
const sixth = await first.pay("p5", "card", 100);
assert.equal(sixth.suspicious, true);
assert.equal(sixth.reason, "6 payments within ten minutes");
await first.end();

const second = stream();
assert.equal((await second.pay("p6", "card", 1)).suspicious, true);
await assert.rejects(second.pay("", "card", 1), (error) => {
  assert(error instanceof ConnectError);
  assert.equal(error.code, Code.InvalidArgument);
  assert.equal(error.rawMessage, "a payment needs a payment_id");
  return true;
});

console.log("ok");
process.exit(0);
