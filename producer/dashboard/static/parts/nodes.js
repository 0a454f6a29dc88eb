/** The nodes of a flow: their states, and how many of their jobs are in which state. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { ENDED, STATES } from "../core/types.js";
import { ProblemBox, Section, State } from "./basics.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/types.js").FlowNode} FlowNode */

const POLL = 3000; // milliseconds

/** @param {{flow: Job}} props */
export function Nodes({ flow }) {
  const nodes = useLoad(
    `nodes of ${flow.id} in run ${flow.run} ${flow.state}`,
    (signal) => /** @type {Promise<{items: FlowNode[]}>} */ (get(`jobs/${flow.id}/nodes`, {}, signal)),
  );
  useEvery(nodes.reload, ENDED.has(flow.state) ? null : POLL);
  return html`<${Section} title="Nodes">
    <${ProblemBox} problem=${nodes.problem} onRetry=${nodes.reload} />
    ${
      nodes.data !== null &&
      html`<table class="rows">
        <thead><tr><th>Node</th><th>State</th><th>After</th><th>Jobs</th></tr></thead>
        <tbody>${nodes.data.items.map(
          (node) => html`<tr>
            <td class="name">${node.job === null ? node.name : html`<a data-row href=${link(`jobs/${node.job}`)}>${node.name}</a>`}</td>
            <td><${State} state=${node.state} /></td>
            <td>${node.on !== "success" && html`<span class="quiet">${node.on} of </span>`}${node.after.join(", ")}</td>
            <td>${node.mapped && html`<${Counts} flow=${flow} node=${node} />`}</td>
          </tr>`,
        )}</tbody>
      </table>`
    }
  <//>`;
}

/** @param {{flow: Job, node: FlowNode}} props */
function Counts({ flow, node }) {
  const numbers = STATES.map((state) => ({ state, n: toNumber(node.jobs[state] ?? 0) ?? 0 }));
  const items = toNumber(node.items);
  return html`${numbers.filter(({ n }) => n > 0).map(({ state, n }) => html`<a class=${`state ${state}`} href=${link("jobs", { flow: flow.id, node: node.name, state })}>${n.toLocaleString("en")} ${state}</a> `)}${items !== null && html`<span class="quiet">of ${items.toLocaleString("en")}</span>`}`;
}
