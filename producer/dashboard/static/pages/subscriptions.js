/** Who gets events: subscriptions, the relay to subscribers' queues, and the clients that listen to this API. */
import { get } from "../core/api.js";
import { brokerReady, health, projectorReady } from "../core/health.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { samples } from "../core/metrics.js";
import { duration } from "../core/times.js";
import { Foreign, Message, ProblemBox, Section, size, Time } from "../parts/basics.js";

/** @typedef {import("../core/types.js").Num} Num */
/** @typedef {{name: string, cursor: Num, behind: Num, moved_at: string, reader: string | null}} Subscription */
/** @typedef {{messages: Num | null, bytes: Num | null, age: string | null, expires: Num | null}} Limits */
/** @typedef {{name: string | null, queue: string, messages: Num | null, consumers: Num | null, filter: string | null, limits: Limits}} Live */
/** @typedef {{items: Subscription[], live: Live[] | null, live_reason: string | null}} Answer */

const PAUSE = 5000; // milliseconds
const MOST_BEHIND = 10_000; // to which the API counts
/** @type {Record<string, string>} */
const MODES = { final: "final events", all: "all events except submitted" };

export function Page() {
  const loaded = useLoad("subscriptions", (signal) => /** @type {Promise<string>} */ (get("metrics", {}, signal)));
  useEvery(loaded.reload, PAUSE);
  // The projector moves the relay, over the broker: without them the last value says nothing.
  const active = projectorReady();
  const data = health.value && loaded.data !== null ? { relay: health.value.relay, metrics: loaded.data } : null;
  return html`
    <header class="title"><h1>Subscriptions</h1></header>
    <${Subscriptions} />
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${data === null && !loaded.problem && html`<p class="loading">Loading …</p>`}
    ${
      data !== null &&
      html`<${Section} title="Relay">
        <p class="quiet">Publishes committed events to the exchange that subscribers' queues are bound to.</p>
        ${data.relay.warning && html`<p class="warning">${data.relay.warning}</p>`}
        <dl class="facts">
          <div><dt>Publishes</dt><dd>${data.relay.mode === null ? html`nothing (<code>JOBTAPE_RELAY_EVENTS=off</code>), or not known` : (MODES[data.relay.mode] ?? data.relay.mode)}</dd></div>
          ${data.relay.behind !== null && html`<div><dt>Behind</dt><dd>${active ? duration(toNumber(data.relay.behind)) : "not known"}</dd></div>`}
          ${COUNTS.map(([name, title]) => samples(data.metrics, name).map(({ value }) => html`<div><dt>${title}</dt><dd>${value.toLocaleString("en")}</dd></div>`))}
        </dl>
      <//>
      <${Section} title="Clients of this API process">
        <p class="quiet">Each stream, WebSocket and waiting request holds a slot (<code>JOBTAPE_MAX_LISTENERS</code>). A page of this dashboard that is live holds one.</p>
        <dl class="facts">${samples(data.metrics, "jobtape_listeners").map(({ labels, value }) => html`<div><dt>${KINDS[labels.kind ?? ""] ?? labels.kind}</dt><dd>${value}</dd></div>`)}</dl>
      <//>`
    }
  `;
}

/** The subscriptions that keep their position in the view, and those that are queues on the broker. */
function Subscriptions() {
  const loaded = useLoad(
    "subscriptions of the API",
    (signal) => /** @type {Promise<Answer>} */ (get("subscriptions", {}, signal)),
  );
  useEvery(loaded.reload, PAUSE);
  const items = loaded.data?.items ?? null;
  return html`
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${items !== null && items.length === 0 && html`<p class="quiet">No catch-up subscription has a name: <code>jobtape.subscribe(since="first", name="audit")</code> makes one.</p>`}
    ${
      items !== null &&
      items.length > 0 &&
      html`<table class="rows" aria-label="Catch-up subscriptions">
        <thead><tr><th>Subscription</th><th>Kind</th><th class="num">Events behind</th><th class="num">Cursor</th><th class="num">Moved last</th><th>Reader</th></tr></thead>
        <tbody>${items.map(
          (one) => html`<tr key=${one.name}>
            <td class="name"><${Foreign} text=${one.name} /></td>
            <td>catch-up</td>
            <td class="num" data-column="events behind">${Number(one.behind).toLocaleString("en")}${Number(one.behind) >= MOST_BEHIND ? " or more" : ""}</td>
            <td class="num" data-column="cursor"><span class="id">${String(one.cursor)}</span></td>
            <td class="num" data-column="moved"><${Time} at=${one.moved_at} /></td>
            <td>${one.reader === null ? html`<span class="quiet">nobody reads</span>` : html`<${Foreign} text=${one.reader} />`}</td>
          </tr>`,
        )}</tbody>
      </table>`
    }
    ${loaded.data !== null && html`<h2 class="between">Live subscriptions</h2><${LiveQueues} live=${loaded.data.live} reason=${loaded.data.live_reason} />`}`;
}

/** @param {{live: Live[] | null, reason: string | null}} props */
function LiveQueues({ live, reason }) {
  if (live === null)
    return html`<p class="quiet">Live subscriptions are queues on the broker. They are not known${brokerReady() ? html`, because <${Message} text=${reason ?? ""} />` : " while the broker does not answer"}.</p>`;
  if (live.length === 0)
    return html`<p class="quiet">No queue is bound to the results: there is no live subscription.</p>`;
  return html`<table class="rows" aria-label="Live subscriptions">
    <thead><tr><th>Subscription</th><th>Kind</th><th class="num">Events waiting</th><th class="num">Consumers</th><th>Filter</th><th>Limits</th></tr></thead>
    <tbody>${live.map(
      (one) => html`<tr key=${one.queue}>
        <td class="name"><${Foreign} text=${one.name ?? one.queue} /></td>
        <td>${one.name === null ? "queue" : "live"}</td>
        <td class="num" data-column="waiting">${counted(one.messages)}${isFull(one) ? " (full)" : ""}</td>
        <td class="num" data-column="consumers">${counted(one.consumers)}</td>
        <td data-column="filter">${one.filter === null ? html`<span class="quiet">not known</span>` : one.filter === "{}" ? "none" : html`<code><${Foreign} text=${one.filter} /></code>`}</td>
        <td data-column="limits">${limitsOf(one.limits) || html`<span class="quiet">none</span>`}</td>
      </tr>`,
    )}</tbody>
  </table>`;
}

/** @param {Num | null} count */
function counted(count) {
  return count === null ? "not known" : Number(count).toLocaleString("en");
}

/** Whether the queue has as many messages as it may. @param {Live} one */
function isFull({ messages, limits }) {
  return messages !== null && limits.messages !== null && Number(messages) >= Number(limits.messages);
}

/** @param {Limits} limits */
function limitsOf({ messages, bytes, age, expires }) {
  return [
    messages !== null && `${counted(messages)} events`,
    bytes !== null && size(Number(bytes)),
    age !== null && `kept for ${age}`,
    expires !== null && `removed after ${duration(Number(expires))} without a consumer`,
  ]
    .filter(Boolean)
    .join(", ");
}

const COUNTS = /** @type {const} */ ([
  ["jobtape_relay_delivered_total", "Delivered"],
  ["jobtape_relay_refused_total", "Refused"],
  ["jobtape_relay_stalls_total", "Stalls"],
]);
/** @type {Record<string, string>} */
const KINDS = { sse: "Event streams", websocket: "WebSockets", wait: "Waiting requests" };
