/** Job types with their limits, which can be changed, and a button that pauses each. */
import { Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { link } from "../core/route.js";
import { useRules } from "../core/rules.js";
import { useState } from "../vendor/hooks.js";
import { Dialog, ProblemBox } from "./basics.js";
import { Change } from "./change.js";
import { pauseOf } from "./pauses.js";
import { Row } from "./row.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/types.js").JobType} JobType */
/** @typedef {import("../core/types.js").Limit} Limit */
/** @typedef {{id: string, name: string, key: string, at_most: number, per: import("../core/types.js").Num | null}} ChangedLimit */

/** @param {{types: JobType[], pauses: Job[] | null, onDone: () => void}} props */
export function JobTypes({ types, pauses, onDone }) {
  const changed = useRules("limits");
  const items = /** @type {ChangedLimit[]} */ (changed.data?.items ?? []);
  const [limit, setLimit] = useState(/** @type {Limit | null} */ (null));
  return html`<h2 class="between">Job types</h2>
    <${ProblemBox} problem=${changed.problem} onRetry=${changed.reload} />
    <table class="rows job-types">
      <thead><tr><th>Job type</th><th>Queue</th><th>Limits</th><th></th></tr></thead>
      <tbody>${types.map((type) => {
        const pause = pauseOf(pauses, { type: type.name });
        return html`<tr key=${type.name}>
          <td class="name"><a data-row href=${link("jobs", { type: type.name })}>${type.name}</a></td>
          <td data-column="queue">${type.queue}</td>
          <td>${type.ordering_key !== null && html`<p>one after the other by <code>${type.ordering_key}</code>${type.on_failure === "hold" && ", held by a failed job"}</p>`}
            ${type.limits.map((one) => html`<${LimitText} key=${textOf(one)} limit=${one} changed=${items.filter((each) => fits(one, each))} onChange=${() => setLimit(one)} onDone=${changed.onChanged} />`)}</td>
          <td class="actions">${pause && html`<a class="state held" href=${link(`jobs/${pause.id}`)}>paused</a> `}
            <${Change} method="POST" path=${`job-types/${encodeURIComponent(type.name)}/${pause ? "resume" : "pause"}`} disabled=${pauses === null} onDone=${onDone}>${pause ? "Resume" : "Pause"}<//></td>
        </tr>`;
      })}</tbody>
    </table>
    ${
      limit !== null &&
      html`<${Dialog} title=${`Change the limit ${limit.name}`} onClose=${() => setLimit(null)}>
      <${LimitForm} limit=${limit} onDone=${() => {
        setLimit(null);
        changed.onChanged();
      }} />
    <//>`
    }`;
}

/** @param {{limit: Limit, changed: ChangedLimit[], onChange: () => void, onDone: () => void}} props */
function LimitText({ limit, changed, onChange, onDone }) {
  return html`<p>${textOf(limit)} <button type="button" class="small" disabled=${obstacle() !== null} title=${obstacle()} aria-label=${`Change the limit ${limit.name}`} onClick=${onChange}>Change …</button></p>
    ${changed.map(
      (
        one,
      ) => html`<p key=${one.id} class="warning">${`now ${textOf({ ...one, by: null })}${one.key && ` for ${one.key}`}`}
        <${Change} method="DELETE" path=${`limits/${encodeURIComponent(one.name)}`} query=${{ key: one.key }} onDone=${onDone}>As in the code<//></p>`,
    )}`;
}

/** @param {{limit: Limit, onDone: () => void}} props */
function LimitForm({ limit, onDone }) {
  const [texts, setTexts] = useState({
    at_most: String(limit.at_most),
    per: limit.per === null ? "" : String(limit.per),
    key: "",
  });
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const faults = Object.fromEntries((problem?.errors ?? []).map((one) => [one.pointer, one.detail]));

  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setProblem(null);
    const per = limit.per === null ? {} : { per: Number(texts.per) };
    try {
      await request("PUT", `limits/${encodeURIComponent(limit.name)}`, {
        body: { at_most: Number(texts.at_most), key: texts.key.trim(), ...per },
      });
      onDone();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
    }
  }

  /** @param {keyof typeof texts} name @param {string} title @param {string} hint @param {boolean} number */
  const field = (
    name,
    title,
    hint,
    number,
  ) => html`<${Row} title=${title} hint=${hint} pointer=${`/${name}`} faults=${faults}
    control=${(/** @type {object} */ more) => html`<input type="text" autocomplete="off" inputmode=${number ? "decimal" : undefined} value=${texts[name]} onInput=${(/** @type {any} */ event) => setTexts((now) => ({ ...now, [name]: event.currentTarget.value }))} ...${more} />`} />`;
  return html`<form onSubmit=${onSubmit} novalidate>
    <p class="quiet">In the code: ${textOf(limit)}. It holds for waiting jobs at once; running jobs go on.</p>
    ${field("at_most", "At most", limit.per === null ? "Jobs at once." : "Jobs in that time.", true)}
    ${limit.per !== null && field("per", "In", "Seconds.", true)}
    ${limit.by !== null && field("key", "Only for", `One key, such as ${limit.by}=acme. Empty: all.`, false)}
    <${ProblemBox} problem=${problem} />
    <button type="submit" class="primary" disabled=${obstacle() !== null} title=${obstacle()}>Change</button>
  </form>`;
}

/** @param {Limit} limit @param {ChangedLimit} changed */
function fits(limit, changed) {
  return limit.name === changed.name && (limit.per === null) === (changed.per === null);
}

/** @param {{name: string, at_most: number, per: import("../core/types.js").Num | null, by: string | null}} limit */
function textOf({ name, at_most, per, by }) {
  return `${name}: ${at_most} ${per === null ? "at once" : `in ${Number(per)} s`}${by === null ? "" : ` by ${by}`}`;
}
