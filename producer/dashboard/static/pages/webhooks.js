/** Webhooks: where events are posted, whether that works, and a form for new ones. */
import { get } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { CopyButton, Dialog, Empty, Foreign, ProblemBox, State, Time } from "../parts/basics.js";
import { Change } from "../parts/change.js";
import { WebhookForm } from "../parts/webhook_form.js";
import { useState } from "../vendor/hooks.js";

/**
 * @typedef {object} Webhook
 * @property {string} id
 * @property {string} url
 * @property {string} description
 * @property {{events?: string[], types?: string[], job?: string, labels?: Record<string, string>, correlation_id?: string}} filter
 * @property {string} body
 * @property {"active" | "failing" | "disabled"} state
 * @property {string | null} disabled_because
 * @property {string | null} failing_since
 * @property {string | null} last_error
 * @property {import("../core/types.js").Num} behind
 */

const PAUSE = 5000; // milliseconds
const SHOWN = 20; // deliveries
const MOST_BEHIND = 10_000; // to which the API counts
const TYPE = "jobtape.webhook";

export function Page() {
  const loaded = useLoad("webhooks", (signal) => get("webhooks", {}, signal));
  const [shown, setShown] = useState(/** @type {string | null} */ (null));
  const [creating, setCreating] = useState(false);
  const [secret, setSecret] = useState(/** @type {string | null} */ (null));
  useEvery(loaded.reload, PAUSE);
  const items = /** @type {Webhook[] | null} */ (loaded.data?.items ?? null);
  const open = items?.find((one) => one.id === shown);
  /** @param {{secret: string}} made */
  function onSecret(made) {
    setCreating(false);
    setSecret(made.secret);
    loaded.reload();
  }
  return html`
    <header class="title"><h1>Webhooks</h1><button type="button" class="primary" disabled=${obstacle({ publishes: false }) !== null} title=${obstacle({ publishes: false })} onClick=${() => setCreating(true)}>New webhook</button></header>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      items === null
        ? !loaded.problem && html`<p class="loading">Loading …</p>`
        : items.length === 0
          ? html`<${Empty} title="There is no webhook yet"><p>A webhook posts events to a URL, signed by Standard Webhooks. Create one here, or with <code>jobtape webhooks create</code>.</p><//>`
          : html`<table class="rows webhooks">
            <thead><tr><th>Webhook</th><th>Events</th><th>State</th><th class="num" title="Events on the tape that the webhook has not passed yet, with those that it does not want">Events not passed yet</th><th></th></tr></thead>
            <tbody>${items.map((one) => html`<${WebhookRow} key=${one.id} webhook=${one} onShow=${() => setShown(one.id)} onSecret=${onSecret} onDone=${loaded.reload} />`)}</tbody>
          </table>`
    }
    ${open !== undefined && html`<${Deliveries} webhook=${open} onClose=${() => setShown(null)} />`}
    ${
      creating &&
      html`<${Dialog} title="New webhook" onClose=${() => setCreating(false)}><${WebhookForm} onDone=${onSecret} /><//>`
    }
    ${
      secret !== null &&
      html`<${Dialog} title="Secret" onClose=${() => setSecret(null)}>
        <p>The receiver checks signatures with this secret. <strong>It is not shown again.</strong></p>
        <p><code class="secret">${secret}</code> <${CopyButton} text=${() => secret}>Copy<//></p>
      <//>`
    }
  `;
}

/** @param {{webhook: Webhook, onShow: () => void, onSecret: (made: {secret: string}) => void, onDone: () => void}} props */
function WebhookRow({ webhook, onShow, onSecret, onDone }) {
  const { id, url, description, state, behind } = webhook;
  const path = `webhooks/${id}`;
  const disabled = state === "disabled";
  return html`<tr>
    <td class="name"><${Foreign} text=${url} limit=${80} />${description && html` <span class="quiet"><${Foreign} text=${description} /></span>`}</td>
    <td data-column="events">${eventsOf(webhook)}</td>
    <td data-column="state"><span class=${`state ${STATES[state]}`}>${state}</span> ${whyOf(webhook)}</td>
    <td class="num" data-column="events not passed yet">${Number(behind).toLocaleString("en")}${Number(behind) >= MOST_BEHIND ? " or more" : ""}</td>
    <td class="actions">
      <button type="button" class="small" onClick=${onShow}>Deliveries</button>
      <${Change} method="POST" path=${`${path}/test`} onDone=${onShow}>Test<//>
      <${Change} method="PATCH" path=${path} body=${{ enabled: disabled }} publishes=${false} onDone=${onDone}>${disabled ? "Enable" : "Disable"}<//>
      <${Change} method="POST" path=${`${path}/replay`} body=${{ after: 0 }} disabled=${disabled} onDone=${onDone} ask="Deliver all past events that match and were not delivered?">Replay<//>
      <${Change} method="POST" path=${`${path}/rotate`} body=${{}} publishes=${false} onDone=${onSecret} ask="Make a new secret? For 24 hours the old one signs too.">New secret<//>
      <${Change} method="DELETE" path=${path} publishes=${false} onDone=${onDone} ask=${`Delete the webhook to ${url}? It gets no more events, and its open deliveries fail.`}>Delete<//>
    </td>
  </tr>`;
}

/** The newest deliveries, and how each has ended. @param {{webhook: Webhook, onClose: () => void}} props */
function Deliveries({ webhook, onClose }) {
  const query = { type: TYPE, label: `webhook:${webhook.id}` };
  const loaded = useLoad(`deliveries ${webhook.id}`, (signal) =>
    get("jobs", { ...query, limit: String(SHOWN) }, signal),
  );
  useEvery(loaded.reload, PAUSE);
  const items = /** @type {any[]} */ (loaded.data?.items ?? []);
  return html`<${Dialog} title="Latest deliveries" wide onClose=${onClose}>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    <p class="quiet"><${Foreign} text=${webhook.url} limit=${80} /></p>
    ${loaded.data !== null && items.length === 0 && html`<p>There was none yet.</p>`}
    ${
      items.length > 0 &&
      html`<table class="rows"><thead><tr><th>Event</th><th>State</th><th>Attempt</th><th>Answer</th><th>Since</th></tr></thead>
      <tbody>${items.map(
        (job) => html`<tr key=${job.id}>
          <td class="name"><a href=${link(`jobs/${job.id}`)}>${job.payload?.body?.type}</a></td>
          <td><${State} state=${job.state} /></td>
          <td class="num" data-column="attempt">${String(job.attempt)}</td>
          <td data-column="answer">${job.state === "succeeded" ? String(job.result?.status) : html`<${Foreign} text=${job.error?.message ?? ""} />`}${job.state === "retrying" && job.run_at && html`<span class="quiet">, next attempt <${Time} at=${job.run_at} /></span>`}</td>
          <td data-column="since"><${Time} at=${job.submitted_at} /></td>
        </tr>`,
      )}</tbody></table>`
    }
    <p><a href=${link("jobs", query)}>All deliveries</a></p>
  <//>`;
}

/** The state of a job whose colour a webhook's state has. @type {Record<string, string>} */
const STATES = { active: "succeeded", failing: "retrying", disabled: "failed" };

/** @param {Webhook} webhook */
function eventsOf({ filter, body }) {
  const names = (filter.events ?? []).join(", ") || "succeeded, failed, cancelled";
  const more = [
    ...(filter.types ?? []),
    ...Object.entries(filter.labels ?? {}).map(([name, value]) => `${name}: ${value}`),
    ...(filter.job ? [`job ${filter.job}`] : []),
    ...(filter.correlation_id ? [`correlation id ${filter.correlation_id}`] : []),
  ].join(", ");
  return html`${names}${more && html` of <${Foreign} text=${more} />`}${body === "full" && html` <span class="quiet">with their data</span>`}`;
}

/** @param {Webhook} webhook */
function whyOf({ state, disabled_because, failing_since, last_error }) {
  if (state === "disabled") return html`<span class="quiet"><${Foreign} text=${disabled_because ?? ""} /></span>`;
  if (state === "failing")
    return html`<span class="quiet"><${Foreign} text=${last_error ?? ""} />, since <${Time} at=${failing_since} /></span>`;
  return null;
}
