/** Messages that came to a work queue and are not jobs. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { parse } from "../core/json.js";
import { useLoad } from "../core/load.js";
import { link, route } from "../core/route.js";
import { Empty, Json, Message, ProblemBox, Section, size, Time } from "../parts/basics.js";

/** @typedef {{id: number, at: string, reason: string, size: number}} Dead */

const PAGE = 50;

/** @param {{id: string | null}} props */
export function Page({ id }) {
  return id === null ? html`<${DeadLetters} />` : html`<${DeadMessage} id=${id} />`;
}

function DeadLetters() {
  const before = route.value.query.get("before");
  const query = { limit: String(PAGE), before };
  const loaded = useLoad(
    `dead ${before}`,
    (signal) => /** @type {Promise<{items: Dead[], next: number | null}>} */ (get("dead", query, signal)),
  );
  const { data } = loaded;
  return html`
    <header class="title"><h1>Dead letters</h1></header>
    <p class="quiet">Messages that no worker could read as a job, and messages of unknown jobs that the broker gave up on. Jobs that failed are <a href=${link("jobs", { state: "failed" })}>among the jobs</a>.</p>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      data === null
        ? !loaded.problem && html`<p class="loading">Loading …</p>`
        : data.items.length === 0
          ? html`<${Empty} title="There is no dead letter"><p>Messages that Jobtape cannot read as jobs would be here, with the reason and the body.</p><//>`
          : html`<table class="rows">
            <thead><tr><th class="num">Number</th><th>Reason</th><th class="num">Size</th><th class="num">Stored</th></tr></thead>
            <tbody>${data.items.map(
              (one) =>
                html`<tr><td class="num"><a data-row href=${link(`dead/${one.id}`)}>${String(one.id)}</a></td><td class="name"><a href=${link(`dead/${one.id}`)}><${Reason} text=${one.reason} limit=${300} /></a></td><td class="num">${size(Number(one.size))}</td><td class="num"><${Time} at=${one.at} /></td></tr>`,
            )}</tbody>
          </table>`
    }
    <nav class="pages" aria-label="Pages of the list">
      ${before !== null && html`<a href=${link("dead")}>Newest</a>`}
      ${data?.next != null && html`<a href=${link("dead", { before: String(data.next) })}>Older</a>`}
    </nav>
  `;
}

/** @param {{id: string}} props */
function DeadMessage({ id }) {
  const loaded = useLoad(`dead ${id}`, (signal) => get(`dead/${encodeURIComponent(id)}`, {}, signal));
  const { data } = loaded;
  return html`
    <header class="title"><h1>Dead letter ${id}</h1><div class="tools"><a href=${link("dead")}>All dead letters</a></div></header>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${data === null && !loaded.problem && html`<p class="loading">Loading …</p>`}
    ${
      data !== null &&
      html`<dl class="facts"><div><dt>Reason</dt><dd><${Reason} text=${data.reason} limit=${2000} /></dd></div><div><dt>Stored</dt><dd><${Time} at=${data.at} /></dd></div><div><dt>Size</dt><dd>${size(Number(data.size))}</dd></div></dl>
      <${Section} title=${data.text === null ? "Body, as Base64" : "Body"}><${Json} value=${body(data)} name="Body" /><//>`
    }
  `;
}

/** Why it is no job; it may quote the message. @param {{text: string, limit: number}} props */
function Reason({ text, limit }) {
  return html`<bdi><${Message} text=${text.length > limit ? `${text.slice(0, limit)}…` : text} /></bdi>`;
}

/** Return the body as the value of JSON that it may be. @param {{text: string | null, base64: string | null}} message */
function body({ text, base64 }) {
  if (text === null) return base64;
  try {
    return parse(text);
  } catch {
    return text;
  }
}
