/** The frame around all pages: navigation, state of the installation, time, API key and keys. */
import { get, keyWanted, Problem, tryKey } from "./core/api.js";
import { answers, faultsOf, look, outage } from "./core/health.js";
import { html } from "./core/html.js";
import { useEvery, useLoad } from "./core/load.js";
import { asOf, change, link, route } from "./core/route.js";
import { firstTime, shownTime } from "./core/time_travel.js";
import { local } from "./core/times.js";
import { Dialog, Empty, Message, ProblemBox, Time } from "./parts/basics.js";
import { TimeStrip } from "./parts/time_strip.js";
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { render } from "./vendor/preact.js";

/** @typedef {{Page: (props: {id: string | null}) => any}} PageModule */

/**
 * Pages by the first part of the address. A page's module is loaded when it is first shown. `past`: whether the page can
 * show another time than now.
 * @type {Record<string, {title: string, nav: string, load: () => Promise<PageModule>, past: boolean}>}
 */
const PAGES = {
  overview: { title: "Overview", nav: "Overview", load: () => import("./pages/overview.js"), past: true },
  jobs: { title: "Jobs", nav: "Jobs", load: () => import("./pages/jobs.js"), past: true },
  failures: { title: "Failures", nav: "Failures", load: () => import("./pages/failures.js"), past: false },
  queues: { title: "Queues and workers", nav: "Queues", load: () => import("./pages/queues.js"), past: false },
  schedules: { title: "Schedules", nav: "Schedules", load: () => import("./pages/schedules.js"), past: false },
  tape: { title: "Tape", nav: "Tape", load: () => import("./pages/tape.js"), past: false },
  dead: { title: "Dead letters", nav: "Dead letters", load: () => import("./pages/dead.js"), past: false },
  subscriptions: {
    title: "Subscriptions",
    nav: "Subscriptions",
    load: () => import("./pages/subscriptions.js"),
    past: false,
  },
  webhooks: { title: "Webhooks", nav: "Webhooks", load: () => import("./pages/webhooks.js"), past: false },
  keys: { title: "API keys", nav: "Keys", load: () => import("./pages/keys.js"), past: false },
  submit: { title: "Submit a job", nav: "Submit", load: () => import("./pages/submit.js"), past: false },
};
const HOME = "overview";
const HEALTH_PAUSE = 15_000; // milliseconds
const ILL_PAUSE = 3000; // while something is wrong: whoever mends it waits for the page to say so
const PRELOAD_AFTER = 1000;

function App() {
  const { path } = route.value;
  const name = path[0] ?? HOME;
  const page = PAGES[name];
  const [help, setHelp] = useState(false);
  useKeys(() => setHelp(true));
  // On a small screen the navigation scrolls.
  useEffect(
    () => document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }),
    [name],
  );
  useEffect(() => {
    document.title =
      page === undefined ? "Jobtape" : `${path[1] ? `${path[1].slice(-12)} · ` : ""}${page.title} · Jobtape`;
  }, [page, path[1]]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" href=${link(HOME)}><span class="mark" aria-hidden="true"></span>Jobtape</a>
      <nav aria-label="Pages">${Object.entries(PAGES).map(
        ([key, one]) => html`<a href=${link(key)} aria-current=${key === name ? "page" : undefined}>${one.nav}</a>`,
      )}</nav>
      <${Health} />
    </header>
    <main id="main" tabindex="-1" class=${asOf.value === null ? "" : "past"}>
      ${
        keyWanted.value !== null
          ? html`<${KeyForm} reason=${keyWanted.value} />`
          : page === undefined
            ? html`<${Empty} title="There is no such page"><p><a href=${link(HOME)}>To the overview</a></p><//>`
            : html`<${Outage} />${asOf.value !== null && (page.past ? html`<${Kept} />` : html`<${NotPast} title=${page.title} />`)}<${Shown} key=${name} name=${name} id=${path[1] ?? null} />`
      }
    </main>
    ${keyWanted.value === null && html`<${TimeStrip} past=${page?.past ?? false} />`}
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
  `;
}

/** Says that a page shows now although the others show another time. @param {{title: string}} props */
function NotPast({ title }) {
  const time = shownTime.value === null ? "the time that you chose" : local(shownTime.value);
  return html`<p class="verdict warn" role="status"><strong>${title}: this page shows now</strong>, not ${time}. Nothing can be changed until you <button type="button" class="small" onClick=${() => change({ as_of: null })}>Go live</button></p>`;
}

/** Says how far back the pages can show the past. */
function Kept() {
  if (firstTime.value === null) return null;
  return html`<p class="quiet">The history is kept since <${Time} at=${new Date(firstTime.value).toISOString()} />. Jobs that were removed since then are not shown.</p>`;
}

/** A page, when its module is there. @param {{name: string, id: string | null}} props */
function Shown({ name, id }) {
  const failed = useRef(false);
  const { data, problem, reload } = useLoad(`page ${name}`, (signal) =>
    /** @type {any} */ (PAGES[name]).load().catch(async () => {
      // Browsers remember that a module could not be loaded for as long as the document is open.
      if (failed.current && (await get("health/live", {}, signal).catch(() => null)) !== null) location.reload();
      failed.current = true;
      throw new Problem(0, { title: "No answer", detail: "The API does not answer. It may be starting again." });
    }),
  );
  if (data === null) return html`<${ProblemBox} problem=${problem} onRetry=${reload} />`;
  const { Page } = /** @type {PageModule} */ (data);
  return html`<${Page} key=${id} id=${id} />`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** Says on every page why it may show old data, or why nothing can be changed. */
function Outage() {
  const found = outage();
  if (found === null) return null;
  const { title, reason, meaning } = found;
  return html`<div class="verdict bad outage" role="status">
    <p><strong>${title}${reason === "" ? "." : ":"}</strong> <${Message} text=${reason && `${reason}.`} /></p>
    ${asOf.value === null && html`<p>${meaning}</p>`}
  </div>`;
}

/** Whether all parts work, in one word, with the reasons when they do not. */
function Health() {
  const { data, problem, reload } = useLoad("health", look);
  const away = outage();
  const faults = data === null ? [] : [...(away === null ? [] : [textOf(away)]), ...faultsOf(data)];
  useEvery(reload, faults.length > 0 ? ILL_PAUSE : HEALTH_PAUSE);
  if (problem !== null && !answers.value) return html`<span class="health bad" role="status">no answer</span>`;
  if (data === null) return html`<span class="health" role="status">looking …</span>`;
  if (!faults.length) return html`<span class="health good" role="status">all parts ready</span>`;
  return html`<details class="health ${data.ready ? "warn" : "bad"}">
    <summary>${data.ready ? "ready, with warnings" : "not ready"}</summary>
    <ul>${faults.map((fault) => html`<li><${Message} text=${fault} /></li>`)}</ul>
  </details>`;
}

/** @param {{title: string, reason: string}} outage */
function textOf({ title, reason }) {
  return reason === "" ? title : `${title}: ${reason}`;
}

/** @param {{reason: string}} props */
function KeyForm({ reason }) {
  const [text, setText] = useState("");
  const [fault, setFault] = useState("");
  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    if (!/^[\x21-\x7e]{8,}$/.test(text)) return setFault("A key has at least 8 visible ASCII characters.");
    try {
      if (!(await tryKey(text))) setFault("The API did not accept this key.");
    } catch (error) {
      setFault(error instanceof Error ? error.message : String(error));
    }
  }
  return html`<form class="key" onSubmit=${onSubmit}>
    <h1>API key</h1>
    <p>${reason} It is the value of <code>JOBTAPE_API_KEY</code>, or a key that was made with it, here or by <code>jobtape keys create</code>. This tab keeps it until you close it.</p>
    <label>Key <input type="password" autocomplete="off" autofocus value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} /></label>
    ${fault && html`<p class="fault" role="alert">${fault}</p>`}
    <button type="submit" class="primary">Use this key</button>
  </form>`;
}

/** @param {{onClose: () => void}} props */
function Help({ onClose }) {
  const keys = [
    ["/", "filter"],
    ["j, k", "next and previous row"],
    ["Enter", "open the row"],
    ["←, →", "one event back or forward in time"],
    ["space", "play from there, and stop"],
    ["End", "live: back to now"],
    ["?", "this list"],
  ];
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <dl class="keys">${keys.map(([key, meaning]) => html`<dt><kbd>${key}</kbd></dt><dd>${meaning}</dd>`)}</dl>
  <//>`;
}

/**
 * The keys that work on every page, unless the viewer types into a field.
 * @param {() => void} onHelp
 */
function useKeys(onHelp) {
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    function onKey(event) {
      if (
        event.ctrlKey ||
        event.metaKey ||
        event.altKey ||
        isField(event.target) ||
        document.querySelector("dialog[open]")
      )
        return;
      if (event.key === "?") onHelp();
      else if (event.key === "/") document.querySelector(/** @type {"input"} */ ("[data-filter]"))?.focus();
      else if (event.key === "End" && asOf.value !== null) change({ as_of: null });
      else if (event.key === "j" || event.key === "k") moveRow(event.key === "j" ? 1 : -1);
      else return;
      event.preventDefault();
    }
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}

/** @param {EventTarget | null} target */
function isField(target) {
  return target instanceof Element && target.matches("input:not([type=range]), textarea, select, [contenteditable]");
}

/** @param {number} step */
function moveRow(step) {
  const rows = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-row]")]);
  const at = rows.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)]?.focus();
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.textContent = "";
render(html`<${App} />`, root);
// The other pages are there before the API may go away.
setTimeout(() => Promise.allSettled(Object.values(PAGES).map((page) => page.load())), PRELOAD_AFTER);
