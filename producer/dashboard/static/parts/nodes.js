/** The nodes of a flow: their states, and how many of their jobs are in which state. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, link } from "../core/route.js";
import { ENDED, STATES } from "../core/types.js";
import { useRef } from "../vendor/hooks.js";
import { Foreign, ProblemBox, Section, State } from "./basics.js";
import { FlowGraph } from "./flow_graph.js";
import { AwaitedSignals } from "./signals.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/types.js").FlowNode} FlowNode */

const POLL = 3000; // milliseconds

/**
 * The nodes now, or at the moment of the past that is shown. `onChanged` gets the job after a signal.
 * @param {{flow: Job, onChanged: (job: Job) => void}} props
 */
export function Nodes({ flow, onChanged }) {
  const at = asOf.value;
  const nodes = useLoad(
    `nodes of ${flow.id} in run ${flow.run} ${at ?? flow.state}`,
    (signal) =>
      /** @type {Promise<{items: FlowNode[]}>} */ (
        get(`jobs/${flow.id}/nodes`, at === null ? {} : { as_of: at }, signal)
      ),
  );
  useEvery(nodes.reload, at !== null || ENDED.has(flow.state) ? null : POLL);
  // While the next moment is loaded, the last one stays, so that nothing jumps.
  const last = useRef({ id: "", items: /** @type {FlowNode[] | null} */ (null) });
  if (nodes.data !== null || last.current.id !== flow.id)
    last.current = { id: flow.id, items: nodes.data?.items ?? null };
  const items = last.current.items;
  const mapped = items?.some((node) => node.mapped);
  return html`<${Section} title="Nodes" class="wide" tools=${html`<${Origin} payload=${flow.payload} />`}>
    <${ProblemBox} problem=${nodes.problem} onRetry=${nodes.reload} />
    ${
      items !== null &&
      html`<${AwaitedSignals} job=${flow} nodes=${items} onSent=${(/** @type {Job} */ job) => {
        onChanged(job);
        nodes.reload();
      }} /><${FlowGraph} flow=${flow} nodes=${items} /><div class="scroll"><table class="rows">
        <thead><tr><th>Node</th><th>State</th><th>After</th>${mapped && html`<th>Jobs</th>`}</tr></thead>
        <tbody>${items.map(
          (node) => html`<tr>
            <td class="name">${node.job === null ? node.name : html`<a data-row href=${link(`jobs/${node.job}`)}>${node.name}</a>`}</td>
            <td><${State} state=${node.state} /></td>
            <td data-column=${node.after.length > 0 ? "after" : undefined}>${node.on !== "success" && html`<span class="quiet">${node.on} of </span>`}${node.after.join(", ")}</td>
            ${mapped && html`<td>${node.mapped && html`<${Counts} flow=${flow} node=${node} />`}</td>`}
          </tr>`,
        )}</tbody>
      </table></div>`
    }
  <//>`;
}

/** The name of a flow, and the one that it was forked from. @param {{payload: any}} props */
function Origin({ payload }) {
  const [name, from] = [payload?.name, payload?.fork?.flow];
  return html`${typeof name === "string" && html`<${Foreign} text=${name} />`}
    ${typeof from === "string" && html`<span class="quiet">forked from <a class="id" href=${link(`jobs/${from}`)}>${from}</a></span>`}`;
}

/** @param {{flow: Job, node: FlowNode}} props */
function Counts({ flow, node }) {
  const numbers = STATES.map((state) => ({ state, n: toNumber(node.jobs[state] ?? 0) ?? 0 }));
  const items = toNumber(node.items);
  return html`${numbers.filter(({ n }) => n > 0).map(({ state, n }) => html`<a class=${`state ${state}`} href=${link("jobs", { flow: flow.id, node: node.name, state })}>${n.toLocaleString("en")} ${state}</a> `)}${items !== null && html`<span class="quiet">of ${items.toLocaleString("en")}</span>`}`;
}
