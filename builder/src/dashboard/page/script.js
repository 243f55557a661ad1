"use strict";

// Draws what `data.json` says. All of that may be a VM's own words: they become text nodes and numbers, never markup.

const PERIOD = 2000; // Milliseconds from one answer to the next question.
const PATIENCE = 5000; // Milliseconds without an answer after which the page says so.
const STATES = { starting: "Starting", ready: "Ready", refused: "Refused", stopping: "Stopping" };
const SOURCES = { default: "default", image: "of the image", disk: "of the config disk" };
const SVG = "http://www.w3.org/2000/svg";

const drawn = new Map();
let before = null; // The last answer.
let heard = Date.now(); // When it came.

const at = (id) => document.getElementById(id);
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const mebibytes = (bytes) => `${(bytes / 1048576).toFixed(1)} MiB`;
const clock = (time) => time.replace("T", " ").replace("Z", "");
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function node(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function shape(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function table(caption, headings, rows) {
  const heads = headings.map((heading) => node("th", { scope: "col" }, heading));
  const line = ([first, ...rest]) =>
    node("tr", {}, node("th", { scope: "row" }, first), ...rest.map((cell) => node("td", {}, cell)));
  return node("table", {}, node("caption", {}, caption), node("thead", {}, node("tr", {}, ...heads)), node("tbody", {}, ...rows.map(line)));
}

function list(pairs) {
  return node("dl", {}, ...pairs.flatMap(([term, value]) => [node("dt", {}, term), node("dd", {}, value)]));
}

// Draws a part again only when it changed: what is selected, opened or focused elsewhere stays.
function show(id, part, draw) {
  const text = JSON.stringify(part);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  const content = "found" in part ? draw(part.found) : [node("p", { class: "quiet" }, `Not known: ${part.missing}`)];
  at(id).replaceChildren(...content);
}

function broken(status) {
  return status.checks.filter((check) => !check.holds && !check.left_out);
}

function headline(answer) {
  const { name, status } = answer;
  const [state, reason] = "found" in status ? [STATES[status.found.state], status.found.reason] : ["No answer", status.missing];
  const count = "found" in status ? broken(status.found).length : 0;
  const promises = count > 0 ? `${plural(count, "promise")} broken` : "";
  const open = "found" in status && status.found.settings?.isolation === "off" ? "containers are not isolated" : "";
  const text = [state, open, promises, reason].filter((word) => word).join(": ");
  at("name").textContent = `Instance ${name}`;
  document.title = `${state} – ${name}`;
  if (at("state").textContent !== text) at("state").textContent = text;
  at("state").className = state === "Ready" && count === 0 && !open ? "good" : state === "Starting" ? "" : "bad";
}

function settings(settings) {
  if (!settings) return ["none in force"];
  const edition = settings.edition === undefined ? "" : `, edition ${settings.edition}`;
  const locked = `isolation ${settings.isolation} (${settings.locked ? "locked" : "not locked"})`;
  return [`${SOURCES[settings.source]}${edition}, ${locked}, SHA-256 `, node("code", {}, settings.sha256)];
}

// Without the digests: `attest` compares those.
function measurements(measured) {
  const names = (measured || []).map((one) => one.text.split(":")[0]);
  return names.length > 0 ? `${names.join(", ")} (for eci-builder attest)` : "nothing: there is no TPM, or it failed";
}

function verdict(check) {
  if (check.left_out) return node("span", { class: "quiet" }, "left out");
  return check.holds ? node("span", { class: "good" }, "holds") : node("span", { class: "bad" }, "BROKEN");
}

function trust(status) {
  const { image, checks } = status;
  const bad = broken(status).length;
  const left = checks.filter((check) => check.left_out).length;
  const held = checks.length - bad - left;
  const rows = checks.map((check) => [check.id, verdict(check), check.promise, check.left_out || check.found]);
  const summary = [`${held} of ${plural(checks.length, "promise")} hold`];
  if (left > 0) summary.push(`${left} left out`);
  if (bad > 0) summary.push(`${bad} BROKEN`);
  const opened = bad > 0 || at("promises")?.open ? { open: "" } : {};
  return [
    list([
      ["Root hash", node("code", {}, image.root_hash)],
      ["Image", `${image.name} ${image.version}, slot ${image.slot}${image.medium === "cd" ? ", on a CD" : ""}${image.on_trial ? ", on trial" : ""}`],
      ["Settings", node("span", {}, ...settings(status.settings))],
      ["Measured", measurements(status.measured)],
    ]),
    node("details", { id: "promises", ...opened }, node("summary", {}, summary.join(", ")),
      table("What the VM reads back from itself", ["Promise", "Verdict", "In words", "Found"], rows)),
  ];
}

// Processor time since the answer before, in percent of one processor, as `docker stats` has it.
function processor(container, passed) {
  const old = before?.containers.found?.running.find((other) => other.id === container.id);
  if (!container.usage || !old?.usage || !(passed > 0)) return "–";
  return `${Math.max(0, (container.usage.cpu_ns - old.usage.cpu_ns) / (passed * 10000)).toFixed(1)} %`;
}

// With that figure: a container that rests has the same others as before, and another one of this.
function measured({ containers, gathered_ms }) {
  if (!("found" in containers)) return containers;
  const passed = before ? gathered_ms - before.gathered_ms : 0;
  const running = containers.found.running.map((container) => ({ ...container, processor: processor(container, passed) }));
  return { found: { ...containers.found, running } };
}

function containers(found) {
  const { running, left_out, ranges_missing } = found;
  if (running.length === 0) return [node("p", {}, "No container runs.")];
  const ids = (range) => (range ? `${range.first}–${range.last}` : "not known");
  const rows = running.map((container) => [
    container.name || container.id.slice(0, 12), container.image, node("code", {}, container.command), container.state,
    ids(container.ids), container.usage ? mebibytes(container.usage.memory_bytes) : "–", container.processor,
  ]);
  const content = [table(plural(running.length + left_out, "running container"),
    ["Name", "Image", "Command", "State", "Ids in the VM", "Memory", "Processor"], rows)];
  if (left_out > 0) content.push(node("p", {}, `${plural(left_out, "more container")} not shown.`));
  if (ranges_missing) content.push(node("p", { class: "quiet" }, `Id ranges are not known: ${ranges_missing}`));
  return content;
}

function denials(found) {
  const { last, rules, not_understood } = found;
  if (rules.length === 0 && not_understood === 0) return [node("p", {}, "Nothing was refused yet.")];
  const told = last.map((denial) => [
    clock(denial.time), denial.rule, `${denial.action} ${denial.container.slice(0, 12)}${denial.image ? ` of ${denial.image}` : ""}`,
    denial.message, denial.remedy,
  ]);
  const content = [
    table("How often, as far as the log goes back", ["Rule", "Times", "Last (UTC)"], rules.map(({ rule, count, last }) => [rule, count, clock(last)])),
    table("The last ones, newest first", ["When (UTC)", "Rule", "What", "Why", "Instead"], told),
  ];
  if (not_understood > 0) content.push(node("p", { class: "quiet" }, `${plural(not_understood, "line")} of the log not understood.`));
  return content;
}

function machine({ machine, used_kib }) {
  const total = machine.memory_mib;
  const memory = used_kib === null ? `${total} MiB` : `${Math.round(used_kib / 1024)} of ${total} MiB in use`;
  const meter = node("meter", { min: 0, max: total, value: (used_kib ?? 0) / 1024, "aria-label": memory });
  const by = machine.accelerator === "tcg" ? "emulated (TCG)" : machine.accelerator.toUpperCase();
  return [list([["Memory", node("span", {}, memory, " ", meter)], ["Processors", `${machine.processors}, ${machine.architecture}, ${by}`]])];
}

// Each bar begins where the one before ended: a step has a duration, and steps follow each other.
function bars({ boot_ms, steps }) {
  const bars = [{ name: "kernel", from: 0, ms: boot_ms.kernel, outcome: "ok" }];
  let from = boot_ms.kernel;
  for (const { name, ms, outcome } of steps) {
    bars.push({ name, from, ms, outcome });
    from += ms;
  }
  if (boot_ms.engine > from) bars.push({ name: "until the engine is ready", from, ms: boot_ms.engine - from, outcome: "ok" });
  return bars;
}

// One that this machine leaves out has not failed.
function hasFailed({ outcome }) {
  return outcome !== "ok" && !outcome.startsWith("left out: ");
}

function boot(status) {
  const all = bars(status);
  const end = Math.max(1, ...all.map((bar) => bar.from + bar.ms));
  const [left, right, height] = [170, 80, 18];
  const bottom = all.length * height;
  const x = (ms) => left + (ms / end) * (960 - left - right);
  const unit = [100, 500, 1000, 5000, 10000, 60000].find((unit) => end / unit <= 10) ?? end;
  const scale = [];
  for (let ms = 0; ms <= end; ms += unit) {
    scale.push(shape("line", { x1: x(ms), x2: x(ms), y1: 0, y2: bottom }));
    scale.push(shape("text", { class: "scale", x: x(ms), y: bottom + 16, "text-anchor": "middle" }, seconds(ms)));
  }
  const rows = all.flatMap((bar, index) => {
    const { name, from, ms } = bar;
    const failed = hasFailed(bar) ? ", failed" : "";
    return [
      shape("text", { x: left - 8, y: index * height + 13, "text-anchor": "end" }, name),
      shape("rect", { class: failed ? "bad" : "bar", x: x(from), y: index * height + 3, width: Math.max(1, x(from + ms) - x(from)), height: height - 6 }),
      shape("text", { x: x(from + ms) + 6, y: index * height + 13 }, `${ms} ms${failed}`),
    ];
  });
  const told = all.map(({ name, ms, outcome }) => `${name} ${ms} ms${outcome === "ok" ? "" : `: ${outcome}`}`).join("; ");
  const failed = all.filter(hasFailed).map((bar) => node("p", { class: "bad" }, `${bar.name}: ${bar.outcome}`));
  const title = status.boot_ms.engine > 0 ? `${seconds(status.boot_ms.engine)} from power-on to the engine` : "The engine is not ready yet";
  return [
    node("p", {}, title),
    shape("svg", { viewBox: `0 0 960 ${bottom + 24}`, role: "img", "aria-labelledby": "boot-name boot-text" },
      shape("title", { id: "boot-name" }, "Boot timeline"), shape("desc", { id: "boot-text" }, told), ...scale, ...rows),
    ...failed,
  ];
}

// The status with these of its fields, for what does not look at the others.
function part(status, fields) {
  return "found" in status ? { found: Object.fromEntries(fields.map((field) => [field, status.found[field]])) } : status;
}

function draw(answer) {
  const { status, machine: record } = answer;
  const used_kib = "found" in status ? status.found.memory_used_kib : null;
  headline(answer);
  show("trust", part(status, ["image", "checks", "settings"]), trust);
  show("containers", measured(answer), containers);
  show("denials", answer.denials, denials);
  show("machine", "found" in record ? { found: { machine: record.found, used_kib } } : record, machine);
  show("boot", part(status, ["boot_ms", "steps"]), boot);
  before = answer;
}

function silence(text) {
  const banner = at("silence");
  banner.hidden = text === "";
  if (banner.textContent !== text) banner.textContent = text;
}

async function refresh() {
  const waiting = setInterval(() => {
    const since = new Date(heard).toLocaleTimeString();
    if (Date.now() - heard > PATIENCE) silence(`The VM has not answered since ${since}. What is below is of then.`);
  }, 1000);
  try {
    const answer = await fetch(`data.json${location.search}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    draw(await answer.json());
    heard = Date.now();
    silence("");
  } catch (error) {
    const since = new Date(heard).toLocaleTimeString();
    silence(`No answer from eci-builder dashboard (${error.message}). What is below is of ${since}. Start it again, and open the address that it prints.`);
  }
  clearInterval(waiting);
  setTimeout(refresh, PERIOD);
}

refresh();
