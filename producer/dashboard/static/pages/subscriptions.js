/** Who gets events: subscriptions, the relay to subscribers' queues, and the clients that listen to this API. */
import { get } from "../core/api.js";
import { health } from "../core/health.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { samples } from "../core/metrics.js";
import { duration } from "../core/times.js";
import { Foreign, ProblemBox, Section, Time } from "../parts/basics.js";

/** @typedef {{name: string, cursor: import("../core/types.js").Num, behind: import("../core/types.js").Num, moved_at: string, reader: string | null}} Subscription */

const PAUSE = 5000; // milliseconds
const MOST_BEHIND = 10_000; // to which the API counts
/** @type {Record<string, string>} */
const MODES = { final: "final events", all: "all events except submitted" };

export function Page() {
  const loaded = useLoad("subscriptions", (signal) => /** @type {Promise<string>} */ (get("metrics", {}, signal)));
  useEvery(loaded.reload, PAUSE);
  const data = health.value && loaded.data !== null ? { relay: health.value.relay, metrics: loaded.data } : null;
  return html`
    <header class="title"><h1>Subscriptions</h1></header>
    <${CatchUp} />
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${data === null && !loaded.problem && html`<p class="loading">Loading …</p>`}
    ${
      data !== null &&
      html`<${Section} title="Relay">
        <p class="quiet">Publishes committed events to the exchange that subscribers' queues are bound to.</p>
        ${data.relay.warning && html`<p class="warning">${data.relay.warning}</p>`}
        <dl class="facts">
          <div><dt>Publishes</dt><dd>${data.relay.mode === null ? "nothing (JOBTAPE_RELAY_EVENTS=off), or not known" : (MODES[data.relay.mode] ?? data.relay.mode)}</dd></div>
          ${data.relay.behind !== null && html`<div><dt>Behind</dt><dd>${duration(toNumber(data.relay.behind))}</dd></div>`}
          ${COUNTS.map(([name, title]) => samples(data.metrics, name).map(({ value }) => html`<div><dt>${title}</dt><dd>${value}</dd></div>`))}
        </dl>
      <//>
      <${Section} title="Clients of this API process">
        <p class="quiet">Each stream, WebSocket and waiting request holds a slot (JOBTAPE_MAX_LISTENERS). This page's own stream is one.</p>
        <dl class="facts">${samples(data.metrics, "jobtape_listeners").map(({ labels, value }) => html`<div><dt>${KINDS[labels.kind ?? ""] ?? labels.kind}</dt><dd>${value}</dd></div>`)}</dl>
      <//>`
    }
  `;
}

/** The subscriptions that keep their position in the view. */
function CatchUp() {
  const loaded = useLoad(
    "catch-up subscriptions",
    (signal) => /** @type {Promise<{items: Subscription[]}>} */ (get("subscriptions", {}, signal)),
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
            <td class="num" data-column="behind">${Number(one.behind).toLocaleString("en")}${Number(one.behind) >= MOST_BEHIND ? " or more" : ""}</td>
            <td class="num" data-column="cursor"><span class="id">${String(one.cursor)}</span></td>
            <td class="num" data-column="moved"><${Time} at=${one.moved_at} /></td>
            <td>${one.reader === null ? html`<span class="quiet">nobody reads</span>` : html`<${Foreign} text=${one.reader} />`}</td>
          </tr>`,
        )}</tbody>
      </table>`
    }
    <p class="quiet">A live subscription has no position: it is a queue on the broker, and <code>jobtape subscriptions list</code> shows it.</p>`;
}

const COUNTS = /** @type {const} */ ([
  ["jobtape_relay_delivered_total", "Delivered"],
  ["jobtape_relay_refused_total", "Refused"],
  ["jobtape_relay_stalls_total", "Stalls"],
]);
/** @type {Record<string, string>} */
const KINDS = { sse: "Event streams", websocket: "WebSockets", wait: "Waiting requests" };
