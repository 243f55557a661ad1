// A run of tests with Testcontainers for Node, that ends without cleaning up.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { setTimeout } from "node:timers/promises";
import { GenericContainer, Network, Wait } from "testcontainers";

const [image] = process.argv.slice(2);
const server = "echo listening; while :; do echo hello | nc -l -p 7000; done";

const network = await new Network().start();
const container = await new GenericContainer(image)
  .withCommand(["sh", "-c", server])
  .withExposedPorts(7000)
  .withNetwork(network)
  .withCopyContentToContainer([{ content: "copied", target: "/tmp/file" }])
  .withWaitStrategy(Wait.forLogMessage("listening"))
  .start();
// It says that it listens a moment before it does.
let answer = "";
for (let attempt = 0; attempt < 60 && !answer; attempt++) {
  answer = await text(connect(container.getMappedPort(7000), container.getHost())).catch(() => "");
  if (!answer) await setTimeout(500);
}
assert.equal(answer, "hello\n");
const { exitCode, output } = await container.exec(["cat", "/tmp/file", "/proc/self/uid_map"]);
assert.equal(exitCode, 0);
assert.match(output, /^copied.*65536\s*$/s);
process.stdout.write(`${container.getId()}\n`, () => process.exit(0));
