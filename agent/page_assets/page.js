// Draws what /events tells: "history" (all charts) once, then "state" (the whole status) and "log" (new lines) as they come.
// Text goes into the page by textContent alone: whatever a device sends stays text.

const $ = (id) => document.getElementById(id);
const RETRY = 5000; // ms until a stream that was refused is asked for again
const LINES = 200;
const SVG = "http://www.w3.org/2000/svg";

let history = null; // the charts: {points, tick, agent: {name: [..]}, devices: {device: {channel: [..]}}}
let stream = null;
let retry = 0;
const cards = new Map(); // device -> {root, rows: channel -> row}

// ---- words

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tone(node, base, kind) {
  const name = kind ? `${base} ${kind}` : base;
  if (node.className !== name) node.className = name;
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function ago(seconds) {
  return seconds < 2 ? "now" : `${span(seconds)} ago`;
}

function bytes(n) {
  if (n < 1000) return `${n} B`;
  if (n < 1e6) return `${(n / 1e3).toFixed(1)} kB`;
  return `${(n / 1e6).toFixed(1)} MB`;
}

function seconds(s) {
  return s < 0.01 ? `${(s * 1000).toFixed(1)} ms` : s < 1 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(1)} s`;
}

function many(n, one, more) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : more}`;
}

// [number, unit] as people read them; places: decimals to show at least, so that a value that happens to be round does not jump.
function shown(value, unit = "", places = 0) {
  if (value === null || value === undefined) return ["–", ""];
  if (typeof value === "boolean") return [value ? "on" : "off", unit];
  if (typeof value !== "number") return [String(value), unit];
  const size = Math.abs(value);
  if (unit === "B" || unit === "B/s") {
    const power = Math.min(4, Math.max(0, Math.floor(Math.log10(size || 1) / 3)));
    return [power ? (value / 1000 ** power).toFixed(size / 1000 ** power < 100 ? 2 : 1) : value.toFixed(0), ["", "k", "M", "G", "T"][power] + unit];
  }
  if (Number.isInteger(value) && !places) return [size < 1e7 ? String(value) : value.toLocaleString("en"), unit];
  if (size >= 1e7 || (size < 1e-3 && size > 0)) return [value.toPrecision(4), unit];
  return [value.toFixed(places), unit];
}

// Decimals that a number has, 3 at most: what a device gives, and no more.
function decimals(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return 0;
  return Math.min(3, (String(value).split(".")[1] || "").length);
}

// ---- charts

function draw(svg, points, zero) {
  const known = points.filter((y) => y !== null);
  if (known.length < 2) {
    svg.replaceChildren();
    return;
  }
  let low = zero ? 0 : Math.min(...known);
  let high = Math.max(...known);
  if (high - low < Math.abs(high) * 1e-6 || high === low) { // a level line stands in the middle, a level zero at the bottom
    const room = Math.abs(high) || 1;
    [low, high] = zero ? [0, low + room * 2] : [low - room, high + room];
  }
  const width = points.length - 1, height = 40, top = 3, room = height - 5;
  let trace = "", area = "", begun = null, x = 0;
  points.forEach((value, index) => {
    if (value === null) {
      if (begun !== null) area += `L${x} ${height}L${begun} ${height}Z`;
      begun = null;
      return;
    }
    x = index;
    const y = (top + room * (1 - (value - low) / (high - low))).toFixed(1);
    trace += `${begun === null ? "M" : "L"}${x} ${y}`;
    area += begun === null ? `M${x} ${y}` : `L${x} ${y}`;
    if (begun === null) begun = x;
  });
  if (begun !== null) area += `L${x} ${height}L${begun} ${height}Z`;
  if (!svg.firstChild) {
    for (const name of ["area", "trace"]) svg.append(document.createElementNS(SVG, "path"));
    svg.setAttribute("preserveAspectRatio", "none");
    svg.firstChild.setAttribute("class", "area");
    svg.lastChild.setAttribute("class", "trace");
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.firstChild.setAttribute("d", area);
  svg.lastChild.setAttribute("d", trace);
}

function extend(points, missed, value) {
  for (let i = 0; i < missed; i++) points.push(i === missed - 1 ? value : null);
  points.splice(0, points.length - history.points);
}

function advance(state) {
  const missed = Math.min(state.charts.tick - history.tick, history.points);
  if (missed <= 0) return;
  history.tick = state.charts.tick;
  for (const [name, points] of Object.entries(history.agent)) extend(points, missed, state.charts[name]);
  for (const [device, channels] of Object.entries(state.values)) {
    const known = (history.devices[device] ||= {});
    const online = state.devices[device]?.state === "online";
    for (const [channel, { value }] of Object.entries(channels)) {
      const number = typeof value === "boolean" ? Number(value) : value;
      if (known[channel]) extend(known[channel], missed, online && typeof number === "number" ? number : null);
      else if (typeof number === "number") known[channel] = [...Array(history.points - 1).fill(null), number];
    }
  }
}

// ---- parts of the page

function tile(id, big, unit, more, kind, points) {
  const root = $(id), head = root.querySelector(".big");
  if (unit) {
    if (!head.querySelector("small")) head.replaceChildren(document.createElement("span"), document.createElement("small"));
    put(head.firstChild, big);
    put(head.querySelector("small"), unit);
  } else put(head, big);
  tone(head, "big", kind);
  put(root.querySelector(".more"), more);
  if (points) draw(root.querySelector(".chart"), points, true);
}

function agent(state) {
  const { link, outbox, loop, readings, process } = state;
  put($("agent"), state.agent);
  document.title = `${link.state === "up" ? "" : "! "}${state.agent} · Outstation`;
  const clock = state.clock.trusted ? "" : " · clock not set";
  const memory = `${bytes(process.rss_bytes)} of memory`;
  put($("about"), `outstation ${state.versions.agent} · up for ${span(state.uptime_s)} · ${memory}${clock}`);

  const up = link.state === "up";
  const failed = !up && link.last_error ? `; ${link.last_error.text}` : "";
  const again = up && link.reconnects ? `, ${many(link.reconnects, "reconnect", "reconnects")}` : "";
  tile("t-link", up ? "connected" : link.state === "backoff" ? "away" : link.state, "",
    `${link.url}, for ${span(link.for_s)}${again}${failed}`, up ? "good" : "bad");

  const lost = readings.dropped + readings.rejected;
  tile("t-rate", state.charts.rate.toFixed(1), "/s",
    `${many(readings.added, "reading", "readings")}, ${readings.written.toLocaleString("en")} delivered` +
    (lost ? `, ${lost.toLocaleString("en")} lost` : ""), lost ? "warn" : "", history.agent.rate);

  const disk = outbox.disk.state;
  const full = outbox.blocked ? ", full" : "";
  tile("t-waiting", outbox.depth.toLocaleString("en"), "waiting",
    (disk === "degraded" ? `disk: ${outbox.disk.reason || "degraded"}` : bytes(outbox.bytes)) + full,
    disk === "degraded" || outbox.blocked ? "bad" : "", history.agent.waiting);

  tile("t-lag", (loop.lag_s * 1000).toFixed(loop.lag_s < 0.01 ? 1 : 0), "ms late",
    loop.slow_count ? many(loop.slow_count, "slow callback", "slow callbacks") : "no slow callback",
    loop.lag_s > 0.25 ? "warn" : "", history.agent.lag_ms);
}

function row(card, channel) {
  const root = $("channel").content.firstElementChild.cloneNode(true);
  const part = (name) => root.querySelector(`.${name}`);
  const made = { root, chart: part("chart"), number: part("number"), unit: part("unit"), places: 0 };
  put(part("name"), channel.replaceAll("_", " "));
  card.list.append(root);
  return made;
}

function card(name) {
  const root = $("device").content.firstElementChild.cloneNode(true);
  const part = (selector) => root.querySelector(selector);
  put(part("h3"), name);
  $("devices").append(root);
  return { root, state: part(".state"), sub: part(".sub"), reason: part(".reason"), list: part("ul"), rows: new Map() };
}

function forget(map, here) {
  for (const [name, made] of map) {
    if (!(name in here)) {
      made.root.remove();
      map.delete(name);
    }
  }
}

function devices(state) {
  forget(cards, state.devices);
  let online = 0;
  for (const [name, device] of Object.entries(state.devices)) {
    if (!cards.has(name)) cards.set(name, card(name));
    const made = cards.get(name);
    const well = device.state === "online";
    online += well;
    put(made.state, device.state);
    tone(made.state, "state", well ? "good" : device.state === "quarantined" ? "bad" : "warn");
    made.root.classList.toggle("stale", !well);
    const faults = Object.values(device.faults).reduce((sum, fault) => sum + fault.count, 0);
    put(made.sub, [
      device.port || device.driver,
      many(device.readings, "reading", "readings"),
      faults ? many(faults, "fault", "faults") : null,
      device.last_reading_s === null ? "none yet" : ago(device.last_reading_s),
    ].filter(Boolean).join(" · "));
    made.reason.hidden = well || !device.reason;
    put(made.reason, device.reason || "");
    const channels = state.values[name] || {};
    forget(made.rows, channels);
    for (const [channel, { value, unit }] of Object.entries(channels)) {
      if (!made.rows.has(channel)) made.rows.set(channel, row(made, channel));
      const line = made.rows.get(channel);
      line.places = Math.max(line.places, decimals(value));
      const [number, measure] = shown(value, unit, line.places);
      put(line.number, number);
      put(line.unit, measure);
      line.root.classList.toggle("wide", typeof value === "string");
      const points = history.devices[name]?.[channel];
      if (points) draw(line.chart, points, false);
    }
  }
  const all = cards.size;
  put($("count"), all ? `${online} of ${all} online` : "none configured");
}

function slow(state) {
  const found = Object.entries(state.loop.slow);
  $("slow").hidden = !found.length;
  const rows = found.map(([name, seen]) => {
    const tr = document.createElement("tr");
    for (const [text, kind] of [[name], [String(seen.count), "n"], [seconds(seen.worst_s), "n"], [seen.where.replace(/^.*\/(?=[^/]+\/[^/]+$)/, "")]]) {
      const td = document.createElement("td");
      td.textContent = text;
      if (kind) td.className = kind;
      tr.append(td);
    }
    return tr;
  });
  $("slow").querySelector("tbody").replaceChildren(...rows);
}

function log(lines) {
  const list = $("log");
  for (const { at, level, text } of lines) {
    const li = document.createElement("li");
    li.className = level;
    const time = document.createElement("time");
    const when = new Date(at * 1000);
    time.dateTime = when.toISOString();
    time.title = when.toLocaleString();
    time.textContent = when.toLocaleTimeString("en-GB");
    const grade = document.createElement("span");
    grade.className = "level";
    grade.textContent = level;
    const words = document.createElement("span");
    words.className = "text";
    const [event, ...rest] = text.split(" ");
    const name = document.createElement("span");
    name.className = "event";
    name.textContent = event;
    words.append(name, rest.length ? ` ${rest.join(" ")}` : "");
    li.append(time, grade, words);
    list.prepend(li);
  }
  while (list.childElementCount > LINES) list.lastElementChild.remove();
}

// ---- the stream

function live(text, kind) {
  put($("live"), text);
  tone($("live"), "live", kind);
}

function open() {
  clearTimeout(retry);
  if (stream || document.hidden) return; // who does not look costs the board nothing
  stream = new EventSource("/events");
  stream.addEventListener("history", (event) => {
    history = JSON.parse(event.data);
    $("log").replaceChildren();
  });
  stream.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    advance(state);
    agent(state);
    devices(state);
    slow(state);
    live("live", "good");
  });
  stream.addEventListener("log", (event) => log(JSON.parse(event.data)));
  stream.onerror = () => {
    live("no answer", "bad");
    if (stream.readyState === EventSource.CLOSED) { // refused: the browser itself asks no more
      stream = null;
      retry = setTimeout(open, RETRY);
    }
  };
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) open();
  else if (stream) {
    stream.close();
    stream = null;
    live("paused", "");
  }
});
open();
