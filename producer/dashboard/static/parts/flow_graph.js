/** A flow as a graph: a box for each node, also for one with 10,000 jobs, whose states are a bar in it. */
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { layers, route } from "../core/layers.js";
import { link } from "../core/route.js";
import { ENDED, STATES } from "../core/types.js";
import { useMemo } from "../vendor/hooks.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/types.js").FlowNode} FlowNode */

const WIDTH = 168; // of a box, in pixels
const HEIGHT = 52;
const GAP = 48; // between columns
const SPACE = 16; // between rows
const EDGE = 6; // around the graph
const PADDING = 10; // in a box
const BAR = 4; // the height of the bar in a box
const LETTERS = 19; // of a name that fit in a box
const ICONS = { waiting: "○", running: "◐", succeeded: "✓", failed: "✕", skipped: "–" };

/** @param {{flow: Job, nodes: FlowNode[]}} props */
export function FlowGraph({ flow, nodes }) {
  const shape = JSON.stringify(nodes.map(({ name, after }) => [name, after]));
  // The states change each second, the places never.
  const places = useMemo(() => layers(nodes), [shape]);
  const at = ({ column, row } = { column: 0, row: 0 }) => ({
    x: EDGE + column * (WIDTH + GAP),
    y: EDGE + row * (HEIGHT + SPACE),
  });
  const all = [...places.values()];
  const width = 2 * EDGE + Math.max(0, ...all.map(({ column }) => column)) * (WIDTH + GAP) + WIDTH;
  const height = 2 * EDGE + Math.max(0, ...all.map(({ row }) => row)) * (HEIGHT + SPACE) + HEIGHT;
  return html`<div class="graph" tabindex="0" role="group" aria-label="Graph of the flow">
    <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`}>
      ${nodes.flatMap((node) =>
        node.after
          .filter((other) => places.has(other))
          .map(
            (other) =>
              html`<path class=${`edge ${node.on} ${node.state}`} d=${curve(route(places, other, node.name).map(at))}><title>${`${node.name} ${PHRASES[node.on]} ${other}`}</title></path>`,
          ),
      )}
      ${nodes.map((node) => html`<${Box} flow=${flow} node=${node} ...${at(places.get(node.name))} />`)}
    </svg>
  </div>`;
}

const PHRASES = { success: "after the success of", failure: "after a failure of", done: "after the end of" };

/** @param {{flow: Job, node: FlowNode, x: number, y: number}} props */
function Box({ flow, node, x, y }) {
  const to = node.mapped && node.job === null ? link("jobs", { flow: flow.id, node: node.name }) : node.job;
  const href = node.mapped || to === null ? to : link(`jobs/${node.job}`);
  const text = node.mapped ? counts(node) : node.type === "jobtape.flow" ? "flow" : node.type;
  const inner = html`<title>${`${node.name}: ${node.type}, ${node.state}${node.mapped ? `, ${text}` : ""}`}</title>
    ${node.mapped && html`<rect class="behind" x=${x + 4} y=${y + 4} width=${WIDTH} height=${HEIGHT} rx="6" />`}
    <rect class="box" x=${x} y=${y} width=${WIDTH} height=${HEIGHT} rx="6" />
    <text class="mark" x=${x + PADDING} y=${y + 21}>${ICONS[node.state]}</text>
    <text class="name" x=${x + PADDING + 16} y=${y + 21}>${short(node.name, LETTERS - 2)}</text>
    <text class="more" x=${x + PADDING} y=${y + 38}>${short(text, LETTERS + 3)}</text>
    ${node.mapped && html`<${Bar} node=${node} x=${x + PADDING} y=${y + HEIGHT - BAR - 4} />`}`;
  const name = `node ${node.state}${node.type === "jobtape.flow" ? " nested" : ""}`;
  return href === null ? html`<g class=${name}>${inner}</g>` : html`<a class=${name} href=${href}>${inner}</a>`;
}

/** The jobs of a mapped node by state. @param {{node: FlowNode, x: number, y: number}} props */
function Bar({ node, x, y }) {
  const known = STATES.map((state) => ({ state, n: toNumber(node.jobs[state] ?? 0) ?? 0 }));
  const begun = known.reduce((sum, { n }) => sum + n, 0);
  const all = Math.max(toNumber(node.items) ?? begun, begun, 1);
  const full = WIDTH - 2 * PADDING;
  let end = x;
  const parts = [...known.filter(({ state }) => ENDED.has(state)), ...known.filter(({ state }) => !ENDED.has(state))];
  return html`<rect class="rest" x=${x} y=${y} width=${full} height=${BAR} />${parts
    .filter(({ n }) => n > 0)
    .map(({ state, n }) => {
      const width = (full * n) / all;
      end += width;
      return html`<rect class=${`part ${state}`} x=${end - width} y=${y} width=${width} height=${BAR} />`;
    })}`;
}

/** @param {FlowNode} node */
function counts(node) {
  const of = (/** @type {import("../core/types.js").State} */ state) => toNumber(node.jobs[state] ?? 0) ?? 0;
  const ended = of("succeeded") + of("failed") + of("cancelled");
  const bad = of("failed") + of("cancelled");
  const items = toNumber(node.items);
  const first = `${ended.toLocaleString("en")}${items === null ? "" : ` of ${items.toLocaleString("en")}`}`;
  return bad > 0 ? `${first}, ${bad.toLocaleString("en")} failed` : `${first} jobs`;
}

/** @param {string} text @param {number} letters */
function short(text, letters) {
  const all = [...text];
  return all.length > letters ? `${all.slice(0, letters - 1).join("")}…` : text;
}

/** A line through the places, straight where it passes one. @param {{x: number, y: number}[]} places */
function curve(places) {
  let path = "";
  for (const [n, to] of places.entries()) {
    const from = places[n - 1];
    if (from === undefined) continue;
    const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
    const bend = Math.max(GAP / 2, (x2 - x1) / 2);
    path += `${n === 1 ? "M" : "L"}${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2} `;
  }
  return path.trimEnd();
}
