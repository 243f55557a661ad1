// What programs do with dockerode, each thing once. The image to use is the argument, and one to pull the next.

import assert from "node:assert/strict";
import { PassThrough, Readable } from "node:stream";
import { text } from "node:stream/consumers";
import Docker from "dockerode";

const [image, pulled] = process.argv.slice(2);
const docker = new Docker();

const finished = (stream) => new Promise((resolve, reject) => docker.modem.followProgress(stream, (error, all) => (error ? reject(error) : resolve(all))));

// An archive with one file, as tar has it since UNIX.
function archive(name, data) {
  const header = Buffer.alloc(512);
  const put = (value, at) => header.write(value, at);
  put(name, 0);
  put("0000644\0", 100);
  put("0000000\0", 108);
  put("0000000\0", 116);
  put(`${Buffer.byteLength(data).toString(8).padStart(11, "0")}\0`, 124);
  put("00000000000\0", 136);
  put("        ", 148);
  put("0", 156);
  put(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `, 148);
  const padding = Buffer.alloc((512 - (Buffer.byteLength(data) % 512)) % 512);
  return Buffer.concat([header, Buffer.from(data), padding, Buffer.alloc(1024)]);
}

async function attaches() {
  const [out, err] = [new PassThrough(), new PassThrough()];
  const both = [text(out), text(err)];
  const [{ StatusCode }, container] = await docker.run(image, ["sh", "-c", "echo out; echo err >&2; exit 5"], [out, err], { Tty: false });
  out.end();
  err.end();
  assert.deepEqual([StatusCode, ...(await Promise.all(both))], [5, "out\n", "err\n"]);
  await container.remove();
}

async function speaks() {
  const container = await docker.createContainer({ Image: image, Cmd: ["cat"], OpenStdin: true, StdinOnce: true });
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, hijack: true });
  await container.start();
  const out = new PassThrough();
  docker.modem.demuxStream(stream, out, out);
  stream.on("end", () => out.end());
  stream.end("half closed\n");
  assert.equal(await text(out), "half closed\n");
  await container.wait();
  await container.remove();
}

async function worksIn(container) {
  const exec = await container.exec({ Cmd: ["sh", "-c", "read line; echo got $line"], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const out = new PassThrough();
  docker.modem.demuxStream(stream, out, out);
  stream.on("end", () => out.end());
  stream.write("it\n");
  assert.equal(await text(out), "got it\n");
  assert.equal((await exec.inspect()).ExitCode, 0);
  const terminal = await container.exec({ Cmd: ["tty"], AttachStdout: true, Tty: true });
  assert.match(await text(await terminal.start({ Tty: true })), /^\/dev\/pts\//);
  await container.putArchive(archive("note", "written"), { path: "/tmp" });
  assert.ok((await text(await container.getArchive({ path: "/tmp/note" }))).includes("written"));
  const followed = await container.logs({ follow: false, stdout: true });
  assert.ok(followed.toString().includes("begun"));
  const stats = await container.stats({ stream: true });
  const first = await new Promise((resolve) => stats.once("data", resolve));
  assert.ok(JSON.parse(first).memory_stats.usage > 0);
  stats.destroy();
}

async function buildsAndPulls() {
  const context = Readable.from([archive("Dockerfile", `FROM ${image}\nRUN cat /proc/self/uid_map >/map\n`)]);
  const log = await finished(await docker.buildImage(context, { t: "noded:1" }));
  assert.ok(log.some((line) => line.stream?.includes("Successfully tagged")));
  const out = new PassThrough();
  const map = text(out);
  await docker.run("noded:1", ["cat", "/map"], out, { HostConfig: { AutoRemove: true } });
  out.end();
  assert.match(await map, /65536\s*$/);
  await docker.getImage("noded:1").remove({ force: true });
  await finished(await docker.pull(pulled));
  assert.ok((await docker.listImages()).some((one) => one.RepoTags?.includes(pulled)));
}

assert.equal((await docker.ping()).toString(), "OK");
await attaches();
await speaks();
const container = await docker.createContainer({ Image: image, Cmd: ["sh", "-c", "echo begun; exec sleep 600"], HostConfig: { Privileged: true } });
await container.start();
await worksIn(container);
await container.remove({ force: true });
await buildsAndPulls();
await assert.rejects(docker.run(image, ["true"], new PassThrough(), { HostConfig: { PidMode: "host" } }), /enhanced container isolation/);
console.log("done");
