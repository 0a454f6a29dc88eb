/** Failures by group: the same error at the same place in one's own code. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, change, link, route } from "../core/route.js";
import { Empty, Foreign, ProblemBox, Time } from "../parts/basics.js";
import { BulkButton } from "../parts/bulk.js";
import { linkOf } from "../parts/failure_name.js";
import { counted } from "../parts/tasks.js";

/** @typedef {import("../core/types.js").Failure} Failure */

const PAGE = 50;
const PAUSE = 5000; // milliseconds
const PERIODS = /** @type {const} */ ([
  ["3600", "Last hour"],
  ["86400", "Last 24 hours"],
  ["604800", "Last 7 days"],
  ["", "All that is kept"],
]);

export function Page() {
  const { query } = route.value;
  const period = query.get("period") ?? "";
  const cursor = query.get("cursor");
  const filters = { type: query.getAll("type"), limit: String(PAGE), cursor };
  const loaded = useLoad(`failures ${period} ${filters.type} ${cursor}`, (signal) => {
    const since = period === "" ? null : new Date(Date.now() - Number(period) * 1000).toISOString();
    return /** @type {Promise<{items: Failure[], next: string | null}>} */ (
      get("failures", { ...filters, since }, signal)
    );
  });
  useEvery(loaded.reload, cursor === null ? PAUSE : null);
  const { data } = loaded;
  return html`
    <header class="title"><h1>Failures</h1>
      <div class="tools">
        ${filters.type.map((type) => html`<button type="button" class="small" aria-label=${`Remove the filter type ${type}`} onClick=${() => change({ type: filters.type.filter((one) => one !== type), cursor: null })}>${type} ×</button>`)}
        <select aria-label="Failed in" value=${period} onChange=${(/** @type {any} */ event) => change({ period: event.currentTarget.value || null, cursor: null })}>
          ${PERIODS.map(([value, title]) => html`<option value=${value}>${title}</option>`)}
        </select>
      </div>
    </header>
    <p class="quiet">Attempts that failed with the same error at the same place in your code are one group.</p>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      data === null
        ? !loaded.problem && html`<p class="loading">Loading …</p>`
        : data.items.length === 0
          ? html`<${Empty} title="Nothing has failed">${period !== "" && html`<p>Not in this time. <a href=${link("failures")}>See all that is kept</a></p>`}<//>`
          : html`<div class="groups">${data.items.map((one) => html`<${Group} key=${one.id} group=${one} />`)}</div>`
    }
    <nav class="pages" aria-label="Pages of the list">
      ${cursor !== null && html`<a href=${link("failures", { period })}>Newest</a>`}
      ${data?.next && html`<a href=${link("failures", { period, type: filters.type, cursor: data.next })}>Older</a>`}
    </nav>
  `;
}

/** @param {{group: Failure}} props */
function Group({ group }) {
  const failed = { failure: group.id, state: "failed" };
  return html`<section class="group" aria-label=${`${group.type}: ${group.error}`}>
    <header>
      <h2><a data-row href=${linkOf(group)}>${group.error}</a> <span class="quiet">in</span> ${group.type}${group.message && html`<span class="fault">: <${Foreign} text=${group.message} limit=${160} /></span>`}</h2>
      <div class="tools">
        ${group.example !== null && html`<a href=${link(`jobs/${group.example}`)}>Newest job</a>`}
        ${group.jobs > 0 && html`<a href=${link("jobs", failed)}>${counted(group.jobs, "failed job")}</a>`}
        ${group.jobs > 0 && asOf.value === null && html`<${BulkButton} action="redrive" filters=${new URLSearchParams(failed)} title="Run these again …" small /><${BulkButton} action="shadow" filters=${new URLSearchParams(failed)} small />`}
      </div>
    </header>
    ${group.where !== null && html`<p><code><${Foreign} text=${placeOf(group)} /></code></p>`}
    <p class="quiet"><strong data-name="failed">${counted(group.failed + group.retrying, "failed attempt")}</strong>${group.retrying > 0 && html`, <span data-name="retrying">${group.retrying.toLocaleString("en")}</span> tried again`} · <strong>${group.jobs === 0 ? "no job" : counted(group.jobs, "job")}</strong> still failed ·
      ${group.reason !== "error" && ` reason ${group.reason} ·`} first <${Time} at=${group.first} /> · last <${Time} at=${group.last} /></p>
  </section>`;
}

/** Return file, line and function: `app/images.py:41 in shrink`. @param {Failure} group */
function placeOf({ where, line }) {
  return line === null ? (where ?? "") : (where ?? "").replace(" in ", `:${line} in `);
}
