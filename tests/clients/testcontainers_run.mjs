// A run of tests with Testcontainers for Node, that ends without cleaning up.

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
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
const socket = connect(container.getMappedPort(7000), container.getHost());
const [data] = await once(socket, "data");
assert.equal(data.toString(), "hello\n");
const { exitCode, output } = await container.exec(["cat", "/tmp/file", "/proc/self/uid_map"]);
assert.equal(exitCode, 0);
assert.match(output, /^copied.*65536\s*$/s);
process.stdout.write(`${container.getId()}\n`, () => process.exit(0));
