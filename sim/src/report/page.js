"use strict";
const byId = id => document.getElementById(id);
const SIDE = 190, AXIS = 26;
const svg = byId("chart"), plot = byId("plot"), height = svg.getAttribute("height");
const events = DATA.events.map(([serial, at, node, kind, text, because]) => ({ serial, at, node, kind, text, because }));
const bySerial = new Map(events.map(event => [event.serial, event]));
const name = node => node < 0 ? "" : DATA.nodes[node].name;

/* --- colours --- */
const root = document.documentElement;
const asked = new Set(location.hash.slice(1).split(","));
let dark = asked.has("dark") || !asked.has("light") && matchMedia("(prefers-color-scheme: dark)").matches;
const paint = () => root.classList.toggle("dark", dark);
paint();
byId("theme").onclick = () => { dark = !dark; paint(); };
byId("copy").onclick = () => navigator.clipboard?.writeText(byId("replay").textContent);

/* --- zoom and pan: `from` is the time at the left edge, `scale` pixels per millisecond --- */
let from = 0, scale = 1, wide = 1;
const x = at => SIDE + (at - from) * scale;
const at = x => from + (x - SIDE) / scale;
const texts = [...byId("labels").children].map(text => ({ text, a: +text.dataset.a, b: +text.dataset.b, y: text.getAttribute("y"), need: text.textContent.length * 6.2 + 8 }));

function place() {
  wide = svg.clientWidth - SIDE - 8;
  // A little room after the end, for what is written there.
  const least = 0.97 * wide / DATA.end;
  scale = Math.min(Math.max(scale, least), 200);
  from = Math.min(Math.max(from, 0), Math.max(0, DATA.end - 0.97 * wide / scale));
  plot.setAttribute("transform", `translate(${SIDE - from * scale} 0) scale(${scale} 1)`);
  byId("hatch").setAttribute("patternTransform", `scale(${1 / scale} 1)`);
  const to = at(SIDE + wide), free = new Map();
  for (const { text, a, b, y, need } of texts) {
    const left = Math.max(a, from), right = Math.min(b, to);
    const px = x(left) + 4, own = text.classList.contains("fault-label");
    const room = own ? a >= from - 2 && a < to && px >= (free.get(y) ?? 0) : (right - left) * scale > need;
    text.style.display = room ? "" : "none";
    if (room) { text.setAttribute("x", px); if (own) free.set(y, px + need); }
  }
  grid(); clash(); pick(picked, false);
}

function grid() {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4];
  const step = steps.find(step => step * scale > 80) ?? 6e4;
  let out = "";
  for (let t = Math.ceil(from / step) * step; t <= at(SIDE + wide); t += step) {
    out += `<path d="M${x(t)} ${AXIS}V${height}"/><text x="${x(t) + 3}" y="18">${(t / 1000).toFixed(step < 10 ? 3 : step < 1000 ? 1 : 0)} s</text>`;
  }
  byId("grid").innerHTML = out;
}

function clash() {
  let out = "";
  DATA.clash.forEach((serial, index) => {
    const event = bySerial.get(serial);
    if (!event) return;
    const px = x(event.at), letter = String.fromCharCode(65 + index);
    if (px < SIDE - 1 || px > SIDE + wide + 4) return;
    const shift = index % 2 ? 1 : -17;
    out += `<path d="M${px} 8V${height}"/><rect x="${px + shift}" y="4" width="16" height="16" rx="3"/><text x="${px + shift + 4}" y="16">${letter}</text>`;
  });
  byId("clash").innerHTML = out;
}

function zoom(factor, around) {
  const time = at(around);
  scale *= factor;
  scale = Math.min(Math.max(scale, 0.97 * wide / DATA.end), 200);
  from = time - (around - SIDE) / scale;
  place();
}
const middle = () => SIDE + wide / 2;
const whole = () => { scale = 0; from = 0; place(); };
byId("in").onclick = () => zoom(2, middle());
byId("out").onclick = () => zoom(1 / 2, middle());
byId("all").onclick = whole;
const messages = byId("messages");
messages.onchange = () => byId("arrows").setAttribute("visibility", messages.checked ? "visible" : "hidden");
messages.checked = asked.has("messages");
messages.onchange();
svg.addEventListener("wheel", event => {
  event.preventDefault();
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) { from += (event.deltaX || event.deltaY) / scale; place(); }
  else zoom(Math.exp(-event.deltaY / 400), Math.max(SIDE, event.offsetX));
}, { passive: false });
let drag = null;
svg.addEventListener("pointerdown", event => { drag = { x: event.clientX, from, moved: false }; });
addEventListener("pointermove", event => {
  if (!drag) return;
  const by = event.clientX - drag.x;
  if (Math.abs(by) > 3) drag.moved = true;
  if (drag.moved) { from = drag.from - by / scale; place(); }
});
addEventListener("pointerup", () => setTimeout(() => { drag = null; }));
addEventListener("keydown", event => {
  if (event.target.tagName === "INPUT") return;
  const go = { "+": () => zoom(1.5, middle()), "-": () => zoom(1 / 1.5, middle()), 0: whole, ArrowLeft: () => { from -= 80 / scale; place(); }, ArrowRight: () => { from += 80 / scale; place(); } }[event.key];
  if (go) { go(); event.preventDefault(); }
});
addEventListener("resize", place);

/* --- where everybody stands at the cursor --- */
const during = (bands, time) => bands.findLast(([a, b]) => a <= time && time <= b);
const left = (lefts, time) => { const now = during(lefts, time); return now ? `${((now[2] - time) / 1000).toFixed(1)} s` : "none"; };
function stand(time) {
  byId("now").textContent = `${(time / 1000).toFixed(3)} s`;
  DATA.nodes.forEach((node, index) => {
    const put = (line, text) => { byId(`at-${index}${line ? "-" + line : ""}`).textContent = text; };
    const trouble = during(node.trouble, time);
    const server = during(node.server, time);
    const place = node.at.findLast(([t]) => t <= time);
    const agent = during(node.agent, time);
    put(0, trouble ? trouble[2] : server ? server[2] : "PostgreSQL is down");
    put(1, !place ? "no data" : server?.[2].startsWith("primary") ? place[1] : `had ${place[1]}`);
    put(2, `${agent ? agent[2] : "no agent"}${during(node.lock, time) ? ", leader key" : ""}`);
    put(3, `right ${left(node.right, time)}, guard ${left(node.guard, time)}`);
  });
  const leader = during(DATA.leader, time);
  byId("at-etcd").textContent = leader ? `${leader[2]} holds the leader key` : "nobody holds the leader key";
}
let cursor = 0;
svg.addEventListener("pointermove", event => {
  const px = Math.max(SIDE, Math.min(event.offsetX, SIDE + wide));
  cursor = at(px);
  byId("cursor").setAttribute("d", `M${px} ${AXIS}V${height}`);
  stand(cursor);
});

/* --- one event and what led to it --- */
let picked = null;
const safe = text => text.replace(/[&<>"]/g, char => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]);
const link = event => `<li class="${event.kind}" data-s="${event.serial}" title="${safe(event.text)}"><time>${(event.at / 1000).toFixed(3)} s</time> ${name(event.node)} ${safe(event.text)}</li>`;
function explain(event) {
  const [what, ...rest] = event.text.split("; ");
  const basis = rest.filter(part => !part.startsWith("not ")), stopped = rest.filter(part => part.startsWith("not "));
  let html = `<p class="what"><b>${(event.at / 1000).toFixed(3)} s ${name(event.node)}</b> ${safe(what)}</p>`;
  if (basis.length) html += `<p>It rests on</p><ul>${basis.join(", ").split(", ").map(part => `<li>${safe(part)}</li>`).join("")}</ul>`;
  if (stopped.length) html += `<p>What it would not do, and why</p><ul>${stopped.map(part => `<li class="not">${safe(part)}</li>`).join("")}</ul>`;
  const chain = [], seen = new Set([event.serial]);
  for (let next = event.because[0]; next !== undefined && !seen.has(next) && chain.length < 14;) {
    const before = bySerial.get(next);
    if (!before) break;
    seen.add(next); chain.unshift(before); next = before.because[0];
  }
  if (chain.length) html += `<p>What led to it, the oldest first</p><ol class="chain">${chain.map(link).join("")}</ol>`;
  const also = event.because.slice(1).map(serial => bySerial.get(serial)).filter(other => other && !seen.has(other.serial));
  if (also.length) html += `<p>And</p><ol class="chain">${also.map(link).join("")}</ol>`;
  const effects = events.filter(other => other.because[0] === event.serial).slice(0, 8);
  if (effects.length) html += `<p>What came of it</p><ol class="chain">${effects.map(link).join("")}</ol>`;
  byId("detail").innerHTML = html;
}
function pick(event, show = true) {
  picked = event;
  if (!event) return;
  const px = x(event.at);
  byId("picked").setAttribute("d", px >= SIDE - 1 && px <= SIDE + wide + 4 ? `M${px} ${AXIS}V${height}` : "");
  if (!show) return;
  if (px < SIDE || px > SIDE + wide) { from = event.at - wide / scale / 2; place(); }
  stand(event.at);
  explain(event);
  document.querySelector(".row.picked")?.classList.remove("picked");
  const row = document.querySelector(`.row[data-s="${event.serial}"]`);
  if (row) {
    row.classList.add("picked");
    byId("list").scrollTop = row.offsetTop - byId("list").offsetTop - 160;
  } else {
    fill(event);
  }
}
document.addEventListener("click", event => {
  if (drag?.moved) return;
  const serial = event.target.closest?.("[data-s]")?.dataset.s;
  if (serial !== undefined && bySerial.has(+serial)) pick(bySerial.get(+serial));
});

/* --- the list --- */
const kinds = [...new Set(events.map(event => event.kind))].sort();
const quiet = new Set(["client", "right", "guard"]);
byId("kinds").innerHTML = kinds.map(kind => `<label><input type="checkbox" value="${kind}"${quiet.has(kind) ? "" : " checked"}> ${kind}</label>`).join("");
const MOST = 3000;
function fill(around) {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = new Set([...byId("kinds").querySelectorAll(":checked")].map(box => box.value));
  const fits = event => event === around || DATA.clash.includes(event.serial) || shown.has(event.kind) && words.every(word => `${name(event.node)} ${event.text}`.toLowerCase().includes(word));
  let rows = events.filter(fits);
  const count = rows.length;
  if (count > MOST) {
    const place = around ? Math.max(0, rows.indexOf(around) - MOST / 2) : 0;
    rows = rows.slice(place, place + MOST);
  }
  byId("list").innerHTML = rows.map(event => `<div class="row ${event.kind}${DATA.clash.includes(event.serial) ? " clash" : ""}${event === picked ? " picked" : ""}" data-s="${event.serial}"><time>${(event.at / 1000).toFixed(4)}</time><span>${name(event.node)}</span><span>${safe(event.text)}</span></div>`).join("")
    + (count > rows.length ? `<div class="row"><span></span><span></span><span>${count - rows.length} more; search to narrow the list</span></div>` : "");
  const row = around && byId("list").querySelector(`[data-s="${around.serial}"]`);
  if (row) byId("list").scrollTop = row.offsetTop - byId("list").offsetTop - 160;
}
byId("search").oninput = () => fill(picked);
byId("kinds").onchange = () => fill(picked);

scale = 0;
place();
fill();
const clashing = DATA.clash.map(serial => bySerial.get(serial)).filter(Boolean);
const last = clashing[clashing.length - 1];
if (last) {
  // Wide enough to see both facts, and what came just before.
  const first = Math.min(...clashing.map(event => event.at));
  const span = Math.max(2 * (last.at - first), 4000);
  if (span < DATA.end) { scale = wide / span; from = last.at - 0.85 * span; place(); }
  pick(last);
} else {
  stand(DATA.end);
}
