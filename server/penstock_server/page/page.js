// The operations page. What the server sends is hostile text until it is shown: it becomes text nodes and attributes of known
// names, never markup, and the page's policy refuses markup from strings altogether. Nodes are kept from step to step, so that
// focus, selection and what is open stay where they are.

const TOKEN = "penstock-token"; // of this tab alone: no cookie, which a browser would send for pages of other sites
const CURVE_POINTS = 120;
const FEATURES = 12; // shown of a version before somebody asks for all
const DRIFT_MS = 10_000;
const RETRY_MS = 2_000;
const SVG = "http://www.w3.org/2000/svg";
const COMMANDS = {
  advance: ["Promote", "Promotes version %v of %m to its next stage now, whatever the evidence says."],
  pause: ["Pause", "Leaves version %v of %m at its share of the traffic until somebody resumes it."],
  resume: ["Resume", "Has version %v of %m go on by what the evidence says."],
  abort: ["Abort", "Ends the rollout of version %v of %m: it gets no more traffic, and the champion answers for all."],
};
const GATE = ["Metric", "Version", "Champion", "Interval", "Proven worse", "Shown as good", "In words"];
const OFFERED = { declared: ["abort"], running: ["advance", "pause", "abort"], paused: ["advance", "resume", "abort"] };

const $ = (id) => document.getElementById(id);
const known = { server: null, models: [], traffic: null, rollouts: [], drift: null, accuracy: null, events: [] };
const curve = [];
let caller = { asked: false, name: "", reads: true, controls: [] };
let stream = new AbortController();

// ---- nodes

function node(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "role") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Puts text into a node, if it is not there already. */
function say(where, text) {
  if (where.said !== text) {
    where.textContent = text;
    where.said = text;
  }
}

function badge(where, text, kind) {
  say(where, text);
  const name = `badge ${kind}`;
  if (where.className !== name) where.className = name;
  where.hidden = !text;
}

/** Has a parent hold one part per item, in their order: parts are made once, kept while their item is there, and updated. */
function keep(parent, items, key, make, update) {
  const parts = (parent.parts ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [id, part] of parts) {
    if (!wanted.has(id)) {
      part.node.remove();
      parts.delete(id);
    }
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let part = parts.get(id);
    if (!part) parts.set(id, (part = make(item)));
    update(part, item);
    if (part.node === next) next = next.nextElementSibling;
    else parent.insertBefore(part.node, next);
  }
}

const versionKey = (item) => JSON.stringify([item.model ?? item.name, item.version]);

function cell(label, className = "") {
  return node("td", { role: "cell", className, "data-label": label });
}

function link(text, address) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  return node("a", { href: url.href, rel: "noreferrer noopener", target: "_blank" }, text);
}

// ---- words

function rate(value) {
  if (value === null || value === undefined) return "–";
  return value < 10 ? String(Number(value.toPrecision(2))) : Math.round(value).toLocaleString("en");
}

function percent(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return `${Number((value * 100).toPrecision(digits))} %`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 1 ? `≤ ${Number((seconds * 1e3).toPrecision(2))} ms` : `≤ ${Number(seconds.toPrecision(2))} s`;
}

const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));

function moment(seconds) {
  const at = new Date(seconds * 1e3);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString();
}

function time(seconds) {
  return node("time", { dateTime: new Date(seconds * 1e3).toISOString() }, moment(seconds));
}

const plural = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;

// ---- now

function showServer() {
  const server = known.server;
  say($("release"), server.version ? `version ${server.version}` : "");
  badge($("ready"), server.ready ? "ready" : "not ready", server.ready ? "good" : "bad");
  const listening = server.workers.filter((worker) => worker.listening).length;
  say($("workers"), listening === server.workers.length ? String(listening) : `${listening} of ${server.workers.length}`);
  const problems = server.ready || !server.reason ? [] : [`The server can answer nothing: ${server.reason}`];
  for (const source of server.sources) if (source.reason) problems.push(`${source.name} is ${source.state}: ${source.reason}`);
  keep($("problems"), problems, (text) => text, (text) => ({ node: node("li", {}, text) }), () => {});
  if (server.rest_port && !$("rest").firstChild) {
    $("rest").append(" · ", node("a", { href: `//${location.hostname}:${server.rest_port}/docs` }, "Try predictions out"));
  }
}

function showTraffic() {
  const { total, capacity } = known.traffic;
  const [perSecond, errors, p50, p99] = total ?? [null, null, null, null];
  say($("rate"), rate(perSecond));
  say($("errors"), percent(errors, 2));
  $("errors").className = errors > 0.01 ? "alarming" : "";
  say($("p50"), duration(p50));
  say($("p99"), duration(p99));
  say($("capacity"), percent(capacity.ratio, 2));
  if (total) {
    curve.push(perSecond);
    if (curve.length > CURVE_POINTS) curve.shift();
    showCurve();
  }
  showVersionTraffic();
}

function showCurve() {
  let drawn = $("curve").firstChild;
  if (!drawn) {
    drawn = shape("svg", { viewBox: `0 0 ${CURVE_POINTS - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
    drawn.append(shape("polyline", {}));
    $("curve").append(drawn);
  }
  const most = Math.max(...curve, 1e-9);
  const first = CURVE_POINTS - curve.length;
  const points = curve.map((value, place) => `${first + place},${(19 - (18 * value) / most).toFixed(2)}`);
  drawn.firstChild.setAttribute("points", points.join(" "));
}

// ---- models

function needsCare(version) {
  return version.state !== "READY" || Boolean(version.reason) || alarmsOf(version).length > 0;
}

function driftOf(version) {
  return known.drift?.watched.find((each) => each.model === version.name && each.version === version.version);
}

const alarmsOf = (version) => driftOf(version)?.alarms ?? [];

function showModels() {
  const wanted = $("find").value.trim().toLowerCase();
  const which = $("which").value;
  const asked = new Set((known.traffic?.versions ?? []).map(([model, version]) => JSON.stringify([model, version])));
  const found = known.models.filter(
    (version) =>
      (!wanted || `${version.name} ${version.version} ${version.roles.join(" ")}`.toLowerCase().includes(wanted)) &&
      (which === "all" || (which === "care" ? needsCare(version) : asked.has(versionKey(version)))),
  );
  keep($("versions"), found, versionKey, makeVersion, updateVersion);
  say($("shown"), `${found.length.toLocaleString("en")} of ${plural(known.models.length, "version")}`);
  const ready = known.models.filter((version) => version.state === "READY").length;
  say($("count"), ready === known.models.length ? String(ready) : `${ready} of ${known.models.length}`);
  showVersionTraffic();
}

function makeVersion() {
  const cells = {
    model: cell("Model", "wide"), version: cell("Version"), role: cell("Role"), state: cell("State", "wide"),
    rate: cell("Requests/s", "number"), errors: cell("Errors", "number"), p50: cell("Median", "number"),
    p99: cell("99 % within", "number"), drift: cell("Drift", "tight"), pages: cell("Pages"),
  };
  const state = node("span");
  const why = node("span", { className: "quiet" });
  const engine = node("span", { className: "quiet" });
  const alarm = node("span");
  cells.state.append(state, why, engine);
  cells.drift.append(alarm);
  return { node: node("tr", { role: "row" }, ...Object.values(cells)), cells, state, why, engine, alarm };
}

function roleText(version) {
  const roles = version.roles.map((role) => {
    if (role === "canary" && version.weight !== null) return `canary ${number(version.weight)} %`;
    if (role === "shadow" && version.sample !== null) return `shadow ${number(version.sample)} %`;
    return role;
  });
  const coming = version.wanted.filter((role) => !version.roles.includes(role)).map((role) => `${role} wanted`);
  return [...roles, ...coming].join(", ");
}

function updateVersion(part, version) {
  const { cells } = part;
  say(cells.model, version.name);
  say(cells.version, version.version);
  say(cells.role, roleText(version));
  badge(part.state, version.state, version.state === "READY" ? "good" : version.state === "UNAVAILABLE" ? "bad" : "warn");
  say(part.why, version.reason ?? "");
  say(part.engine, version.engine ?? "");
  if (cells.pages.said !== version.page) {
    cells.pages.said = version.page;
    cells.pages.replaceChildren(...[version.page ? link("MLflow", version.page) : null].filter(Boolean));
  }
  const drift = driftOf(version);
  const alarms = drift?.alarms.length ?? 0;
  badge(part.alarm, alarms ? plural(alarms, "alarm") : drift ? "none" : "", alarms ? "bad" : "");
}

function showVersionTraffic() {
  if (!known.traffic) return;
  const isKnown = known.traffic.total !== null;
  const asked = new Map(known.traffic.versions.map(([model, version, ...numbers]) => [JSON.stringify([model, version]), numbers]));
  for (const [id, { cells }] of $("versions").parts ?? []) {
    const [perSecond, errors, p50, p99] = asked.get(id) ?? [isKnown ? 0 : null, null, null, null];
    say(cells.rate, rate(perSecond));
    say(cells.errors, percent(errors, 2));
    say(cells.p50, duration(p50));
    say(cells.p99, duration(p99));
  }
}

// ---- rollouts

function showRollouts() {
  $("rollouts-none").hidden = known.rollouts.length > 0;
  keep($("rollout-list"), known.rollouts, versionKey, makeRollout, updateRollout);
}

function makeRollout(rollout) {
  const part = {
    title: node("h3"), status: node("span"), beside: node("span", { className: "quiet" }), stages: node("ol", { className: "stages" }),
    reason: node("p"), problem: node("p"), words: node("p", { className: "quiet" }), gates: node("tbody", { role: "rowgroup" }),
    history: node("ol", { className: "plain" }), actions: node("p", { className: "actions" }),
  };
  part.stages.setAttribute("aria-label", "Stages");
  part.happened = node("details", {}, node("summary", {}, "What has happened"), part.history);
  part.table = node(
    "table",
    { role: "table", className: "cards", "aria-label": `Evidence on version ${rollout.version} of ${rollout.model}` },
    node("thead", { role: "rowgroup" }, node("tr", { role: "row" },
      ...GATE.map((each) => node("th", { role: "columnheader", scope: "col" }, each)))),
    part.gates,
  );
  const head = node("div", { className: "head" }, part.title, part.status, part.beside);
  part.node = node("article", { className: "box" },
    head, part.stages, part.reason, part.problem, part.actions, part.table, part.words, part.happened);
  part.problem.className = "warn";
  return part;
}

function updateRollout(part, rollout) {
  const kinds = { promoted: "good", running: "good", promoting: "good", paused: "warn", declared: "" };
  say(part.title, `${rollout.model} ${rollout.version}`);
  badge(part.status, rollout.status.replace("_", " "), kinds[rollout.status] ?? "bad");
  const since = rollout.since ? `, since ${moment(rollout.since)}` : "";
  say(part.beside, `${rollout.champion ? `beside ${rollout.champion}` : ""}${since}`);
  keep(part.stages, rollout.stages.map((name, place) => ({ name, place })), (each) => `${each.place} ${each.name}`,
    (each) => ({ node: node("li", {}, each.name) }),
    (stage, each) => {
      if (!rollout.ended && each.name === rollout.stage) stage.node.setAttribute("aria-current", "step");
      else stage.node.removeAttribute("aria-current");
    });
  say(part.reason, rollout.reason);
  say(part.problem, rollout.problem);
  part.problem.hidden = !rollout.problem;
  say(part.words, rollout.in_words);
  part.table.hidden = rollout.gates.length === 0;
  keep(part.gates, rollout.gates, (gate) => gate.metric, makeGate, updateGate);
  part.happened.hidden = rollout.history.length === 0;
  keep(part.history, rollout.history.map((each, place) => ({ ...each, place })).reverse(), (each) => `${each.place} ${each.at}`,
    (each) => ({ node: node("li", {}, time(each.at), ` ${each.text}`) }), () => {});
  const mayAct = caller.controls.includes(rollout.model);
  const offered = mayAct && !rollout.ended ? (OFFERED[rollout.status] ?? []) : [];
  part.actions.hidden = offered.length === 0;
  keep(part.actions, offered, (word) => word, (word) => ({ node: action(rollout.model, rollout.version, word) }), () => {});
}

function makeGate() {
  const cells = GATE.map((name) => cell(name, name === "In words" ? "wide" : "tight"));
  return { node: node("tr", { role: "row" }, ...cells), cells };
}

function updateGate(part, gate) {
  const [low, high] = gate.interval;
  const interval = gate.interval.length ? `${number(low)} to ${high === null ? "∞" : number(high)}` : "–";
  const evidence = (value) => (value >= 1 ? "yes" : `${number(value)} of 1`);
  const texts = [gate.metric, number(gate.version), number(gate.champion), interval, evidence(gate.worse), evidence(gate.within),
    gate.sentence];
  part.cells.forEach((each, place) => say(each, texts[place]));
}

function action(model, version, word) {
  const [name, text] = COMMANDS[word];
  const button = node("button", { type: "button", "aria-label": `${name} version ${version} of ${model}` }, name);
  button.addEventListener("click", async () => {
    const told = text.replace(/%[vm]/g, (each) => (each === "%v" ? version : model));
    if (!(await confirmed(name, told))) return;
    button.disabled = true;
    try {
      const path = `v1/rollouts/${encodeURIComponent(model)}/${word}`;
      const reply = await ask(path, { method: "POST", headers: { "X-Penstock-Action": word } });
      if (!reply.ok) throw new Error((await reply.text()).trim());
      notify(`${name}: version ${version} of ${model} was told so.`);
    } catch (error) {
      notify(`${name}: ${error.message}`, "bad");
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

function confirmed(title, text) {
  say($("asking-title"), title);
  say($("asking-text"), text);
  say($("asking-yes"), title);
  const dialog = $("asking");
  return new Promise((resolve) => {
    let answer = false;
    $("asking-yes").onclick = () => {
      answer = true;
      dialog.close();
    };
    $("asking-no").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
    $("asking-no").focus();
  });
}

// ---- drift

function showDrift() {
  const watched = [...known.drift.watched].sort((one, other) => other.alarms.length - one.alarms.length);
  $("drift-none").hidden = watched.length > 0;
  keep($("drift-list"), watched, versionKey, makeDrift, updateDrift);
  const alarms = watched.reduce((sum, each) => sum + each.alarms.length, 0);
  say($("alarms"), String(alarms));
  $("alarms").className = alarms ? "alarming" : "";
}

function makeDrift(version) {
  const part = {
    title: node("strong"), state: node("span"), about: node("span", { className: "quiet" }), alarms: node("ul", { className: "plain" }),
    body: node("div"), readAt: -Infinity, showsAll: false,
  };
  part.node = node("details", { className: "box" },
    node("summary", {}, part.title, " ", part.state, " ", part.about), part.alarms, part.body);
  part.node.addEventListener("toggle", () => readDrift(part, version));
  return part;
}

const columnName = (name) => name || "(predictions)";

function updateDrift(part, version) {
  const alarms = version.alarms.length;
  say(part.title, `${version.model} ${version.version}`);
  badge(part.state, alarms ? plural(alarms, "alarm") : "no alarm", alarms ? "bad" : "good");
  const drifted = version.drifted === null ? "too few rows to compare" : `${version.drifted} of ${plural(version.tested, "feature")} drifted`;
  say(part.about, `${drifted} in the latest ${plural(version.rows, "row")}`);
  keep(part.alarms, version.alarms, (alarm) => `${alarm.column} ${alarm.kind} ${alarm.since}`,
    (alarm) => ({ node: node("li", {}, node("strong", {}, columnName(alarm.column)),
      alarm.kind === "unseen" ? " has more values that training never saw, since " : " is distributed otherwise, since ",
      time(alarm.since)) }), () => {});
  readDrift(part, version);
}

async function readDrift(part, version) {
  if (!part.node.open || part.isReading || performance.now() - part.readAt < DRIFT_MS * 0.9) return;
  part.isReading = true;
  try {
    const reply = await ask(`v1/drift/${encodeURIComponent(version.model)}?version=${encodeURIComponent(version.version)}`);
    if (!reply.ok) throw new Error((await reply.text()).trim());
    const [found] = (await reply.json()).versions;
    if (found) showFeatures(part, found);
    part.readAt = performance.now();
  } catch (error) {
    part.body.replaceChildren(node("p", {}, `Its features cannot be read: ${error.message}`));
  } finally {
    part.isReading = false;
  }
}

function concern(column, alarmed) {
  if (alarmed.has(column.name)) return -1;
  return column.drifted ? 0 : 1 + (column.p_value ?? 1);
}

function showFeatures(part, found) {
  const alarms = new Map(found.alarms.map((alarm) => [alarm.column, alarm]));
  const predictions = found.predictions ? [{ ...found.predictions, name: "" }] : [];
  const columns = [...predictions, ...found.columns, ...found.answers];
  columns.sort((one, other) => concern(one, alarms) - concern(other, alarms));
  if (!part.list) {
    part.list = node("div", { className: "features" });
    part.more = node("button", { type: "button" });
    part.more.addEventListener("click", () => {
      part.showsAll = true;
      showFeatures(part, part.found);
    });
    part.body.replaceChildren(
      node("p", { className: "quiet" }, node("span", { className: "key before", "aria-hidden": "true" }), "training rows ",
        node("span", { className: "key now", "aria-hidden": "true" }), "now"),
      part.list, part.more);
  }
  part.found = found;
  const shown = part.showsAll ? columns : columns.slice(0, FEATURES);
  part.more.hidden = shown.length === columns.length;
  say(part.more, `Show all ${columns.length}`);
  keep(part.list, shown, (column) => column.name, makeFeature, (feature, column) => updateFeature(feature, column, alarms.get(column.name)));
}

function makeFeature(column) {
  const part = { title: node("h3", {}, columnName(column.name)), state: node("span"), text: node("p", { className: "quiet" }) };
  part.picture = shape("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img" });
  part.since = node("p");
  part.node = node("div", { className: "feature" },
    node("div", { className: "head" }, part.title, part.state), part.picture, part.text, part.since);
  return part;
}

function updateFeature(part, column, alarm) {
  badge(part.state, alarm ? "alarm" : column.drifted ? "drifted" : column.drifted === null ? "too few rows" : "as trained",
    alarm ? "bad" : column.drifted ? "warn" : "");
  const cells = column.labels
    .map((label, place) => ({ label, before: column.reference[place] ?? 0, now: column.current[place] ?? 0 }))
    .filter((each) => each.before > 0 || each.now > 0);
  const most = Math.max(...cells.flatMap((each) => [each.before, each.now]), 1e-9);
  const width = 100 / Math.max(cells.length, 1);
  part.picture.replaceChildren(...cells.flatMap((each, place) => ["before", "now"].map((kind, second) => {
    const height = (38 * each[kind]) / most;
    const bar = shape("rect", { class: kind, x: place * width + width * (0.1 + 0.4 * second), width: width * 0.38, y: 40 - height, height });
    const tip = shape("title", {});
    tip.textContent = `${each.label}: ${percent(each.before)} of the training rows, ${percent(each.now)} now`;
    bar.append(tip);
    return bar;
  })));
  const changed = [...cells].sort((one, other) => Math.abs(other.now - other.before) - Math.abs(one.now - one.before))[0];
  const most_text = changed ? `most changed: ${changed.label}, from ${percent(changed.before)} to ${percent(changed.now)}` : "no rows yet";
  part.picture.setAttribute("aria-label", `${columnName(column.name)}: ${most_text}`);
  const numbers = [most_text];
  if (column.jensen_shannon !== null) numbers.push(`distance ${number(column.jensen_shannon)}`);
  if (column.importance !== null) numbers.push(`importance ${number(column.importance)}`);
  say(part.text, numbers.join("; "));
  say(part.since, alarm ? `alarm since ${moment(alarm.since)}` : "");
  part.since.hidden = !alarm;
}

// ---- accuracy

function interval(found) {
  return `${percent(found.value)} (${percent(found.low)} to ${percent(found.high)})`;
}

function qualityText(quality) {
  const parts = [];
  if (quality.accuracy) parts.push(`accuracy ${interval(quality.accuracy)}`);
  if (quality.auc) parts.push(`AUC ${number(quality.auc.value)} (${number(quality.auc.low)} to ${number(quality.auc.high)})`);
  const error = quality.mean_absolute_error;
  if (error) parts.push(`mean error ${number(error.value)} (${number(error.low)} to ${number(error.high)})`);
  return parts.join(", ") || "–";
}

function showAccuracy() {
  const expected = new Map((known.drift?.watched ?? []).filter((each) => each.expected_accuracy)
    .map((each) => [versionKey(each), each]));
  const labelled = known.accuracy ?? [];
  const ids = new Set(labelled.map(versionKey));
  const others = [...expected.values()].filter((each) => !ids.has(versionKey(each)));
  const rows = [...labelled, ...others.map((each) => ({ model: each.model, version: each.version, quality: null }))];
  $("accuracy-table").hidden = rows.length === 0;
  $("accuracy-none").hidden = known.accuracy !== null && rows.length > 0;
  say($("accuracy-none"), known.accuracy === null
    ? "No labels are taken here; penstock serve --labels takes them."
    : "No answer that is old enough has a label yet.");
  keep($("qualities"), rows, versionKey,
    () => {
      const cells = [cell("Model", "wide"), cell("Version"), cell("By labels", "wide"), cell("Expected without", "wide"), cell("Answers", "number"),
        cell("Since")];
      return { node: node("tr", { role: "row" }, ...cells), cells };
    },
    (part, row) => {
      const guess = expected.get(versionKey(row))?.expected_accuracy;
      const quality = row.quality;
      const texts = [row.model, row.version, quality ? qualityText(quality) : "–", guess ? interval(guess) : "–",
        quality ? quality.rows.toLocaleString("en") : "–", quality?.since_ns ? moment(quality.since_ns / 1e9) : "–"];
      part.cells.forEach((each, place) => say(each, texts[place]));
    });
}

// ---- events

function showEvents() {
  $("events-none").hidden = known.events.length > 0;
  keep($("event-list"), known.events, (each) => JSON.stringify(each),
    (each) => {
      const { model, version, ...others } = each.about;
      const kind = { error: "bad", warning: "warn" }[each.level];
      const name = node("span", kind ? { className: `badge ${kind}` } : {}, each.event);
      const about = [model, version].filter(Boolean).join(" ");
      const more = Object.entries(others).map(([field, value]) => `${field} ${value}`).join(", ");
      return { node: node("li", {}, time(each.at), name, node("strong", {}, about), node("span", {}, more)) };
    }, () => {});
}

// ---- the server

const SHOWN = {
  server: [showServer], models: [showModels], traffic: [showTraffic], rollouts: [showRollouts], events: [showEvents],
  drift: [showDrift, showModels, showAccuracy], accuracy: [showAccuracy],
};

function take(name, value) {
  known[name] = value;
  for (const show of SHOWN[name] ?? []) show();
  if (name === "models") performance.mark("models-shown");
}

function ask(path, { headers = {}, ...options } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const shown = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { cache: "no-store", credentials: "same-origin", ...options, headers: { ...headers, ...shown } });
}

/** The server-sent events of an answer's body: EventSource would do, but cannot send a token in a header. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const each of whole) {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(each) ?? [];
      if (name) yield [name, JSON.parse(data)];
    }
  }
}

async function askWhoIAm() {
  const reply = await ask("v1/caller");
  if (reply.status === 401 && sessionStorage.getItem(TOKEN)) {
    sessionStorage.removeItem(TOKEN);
    notify((await reply.text()).trim(), "bad");
    return askWhoIAm();
  }
  if (!reply.ok) throw new Error((await reply.text()).trim());
  caller = await reply.json();
  const isIn = Boolean(sessionStorage.getItem(TOKEN));
  const rights = caller.controls.length ? "" : ", read-only";
  say($("who"), caller.asked ? (isIn || caller.name !== "anybody" ? `${caller.name}${rights}` : "not signed in") : "read-only: no access rules");
  $("sign").hidden = !caller.asked;
  say($("sign"), isIn ? "Sign out" : "Sign in");
  showRollouts();
  return caller;
}

async function follow() {
  const pause = (ms, signal) => new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
  });
  for (;;) {
    stream = new AbortController();
    const { signal } = stream;
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
      continue;
    }
    try {
      await askWhoIAm();
      if (!caller.reads) {
        say($("link"), "nothing to show");
        if ($("notice").className !== "bad") notify("What this server does is told to those who may read of all models: sign in with their token.");
        await pause(2 ** 31 - 1, signal);
        continue;
      }
      const reply = await ask("v1/live", { signal });
      if (!reply.ok) throw new Error((await reply.text()).trim());
      say($("link"), "live");
      let rollouts = "";
      for await (const [name, value] of events(reply.body)) {
        take(name, value);
        // A rollout of a model that is new here may be one that the caller may control.
        const named = name === "rollouts" ? value.map((each) => each.model).join("\n") : rollouts;
        if (named !== rollouts) {
          rollouts = named;
          await askWhoIAm();
        }
      }
      say($("link"), "the server ended the connection; trying again");
    } catch (error) {
      if (!signal.aborted) say($("link"), `not connected: ${error.message}; trying again`);
    }
    if (!signal.aborted) await pause(RETRY_MS, signal);
  }
}

function notify(text, kind = "") {
  $("notice").className = kind;
  $("notice").textContent = text;
}

// ---- people

function signIn() {
  if (sessionStorage.getItem(TOKEN)) {
    sessionStorage.removeItem(TOKEN);
    location.reload(); // nothing that was read with the token stays
    return;
  }
  $("token").value = "";
  $("signing").showModal();
}

$("sign").addEventListener("click", signIn);
$("signing-cancel").addEventListener("click", () => $("signing").close());
$("signing-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  $("signing").close();
  if (!/^[!-~]+$/.test(token)) {
    notify("This is no token: expected letters, digits and signs in one word.", "bad");
    return;
  }
  sessionStorage.setItem(TOKEN, token);
  notify("");
  stream.abort();
});
$("find").addEventListener("input", showModels);
$("which").addEventListener("change", showModels);
// While nobody looks, the server has nothing to compute for this page.
document.addEventListener("visibilitychange", () => document.hidden && stream.abort());
follow();
