/** What a shadow run found: the kinds of differences, pairs of values side by side, and the jobs to run again. */
import { html } from "../core/html.js";
import { stringify } from "../core/json.js";
import { link } from "../core/route.js";
import { Foreign, Section } from "./basics.js";
import { BulkButton } from "./bulk.js";
import { counted } from "./tasks.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {{job: string, then?: unknown, now?: unknown}} Example */
/** @typedef {{type: string, path: string, then: string, now: string, jobs: number, examples: Example[]}} Kind */
/** @typedef {{kinds: Kind[], different: Record<string, number[]>, jobs: number, unknown_type: number, more: number}} Result */

/** @param {{job: Job}} props */
export function ShadowFound({ job }) {
  const result = /** @type {Result} */ (job.result);
  const ids = Object.keys(result.different);
  const order = result.kinds.map((_, n) => n).sort((one, other) => Number(kind(other).jobs) - Number(kind(one).jobs));
  /** @param {number} n */
  function kind(n) {
    return /** @type {Kind} */ (result.kinds[n]);
  }
  const unnamed = ids.filter((id) => result.different[id]?.length === 0);
  const ran = Number(result.jobs) - Number(result.unknown_type);
  return html`
    ${ids.length === 0 && ran > 0 && html`<p class="quiet">With the same payloads, the handlers of today end as they did then. Jobtape changed nothing.</p>`}
    ${Number(result.unknown_type) > 0 && html`<p class="warning">${counted(result.unknown_type, "job")} could not be run: their types are not loaded in the projector's process (<code>JOBTAPE_JOBS</code>).</p>`}
    ${Number(result.more) > 0 && html`<p class="warning">Only the first ${ids.length} jobs that differ are named; ${counted(result.more, "job")} more differ.</p>`}
    ${order.map((n) => html`<${KindFound} key=${n} kind=${kind(n)} ids=${ids.filter((id) => result.different[id]?.some((one) => Number(one) === n))} />`)}
    ${
      unnamed.length > 0 &&
      html`<${Section} title=${`${counted(unnamed.length, "job")} with other differences`} tools=${html`<${BulkButton} action="redrive" ids=${unnamed} title="Run these again …" small />`}><p class="quiet">Only the first kinds are kept.</p><//>`
    }
  `;
}

/** @param {{kind: Kind, ids: string[]}} props */
function KindFound({ kind, ids }) {
  const title = `${kind.type}: ${kind.path || "outcome"}, ${kind.then} → ${kind.now}`;
  return html`<section aria-label=${title}>
    <header>
      <h2><a href=${link("jobs", { type: kind.type })}>${kind.type}</a> <code>${kind.path || "outcome"}</code> ${kind.then} → ${kind.now}</h2>
      <div class="tools"><span class="quiet">${counted(kind.jobs, "job")}</span><${BulkButton} action="redrive" ids=${ids} title="Run these again …" small disabled=${ids.length === 0} /></div>
    </header>
    <div class="scroll"><table class="fields">
      <thead><tr><th>Job</th><th>Then</th><th>Now</th></tr></thead>
      <tbody>${kind.examples.map(
        (one) =>
          html`<tr><th scope="row"><a class="id" title=${one.job} href=${link(`jobs/${one.job}`)}>…${one.job.slice(-12)}</a></th><td data-column="then"><${Foreign} text=${textOf(kind, one, "then")} limit=${400} /></td><td data-column="now"><${Foreign} text=${textOf(kind, one, "now")} limit=${400} /></td></tr>`,
      )}</tbody>
    </table></div>
    ${kind.examples.length < ids.length && html`<p class="quiet">${ids.length - kind.examples.length} more like these.</p>`}
  </section>`;
}

/** Return a value as JSON, so that a number and its text are not the same; an error as it is. @param {Kind} kind @param {Example} example @param {"then" | "now"} name */
function textOf(kind, example, name) {
  if (!(name in example)) return "absent";
  const value = example[name];
  return kind.path === "" && typeof value === "string" ? value : stringify(value);
}
