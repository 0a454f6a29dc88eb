/** Small parts that all pages use. */
import { copy } from "../core/clipboard.js";
import { html } from "../core/html.js";
import { stringify } from "../core/json.js";
import { link } from "../core/route.js";
import { local } from "../core/times.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";

/** @typedef {import("../core/html.js").Children} Children */

/** @param {{state: string}} props */
export function State({ state }) {
  return html`<span class=${`state ${state}`}>${state}</span>`;
}

/**
 * A time in the viewer's zone, with UTC in its tooltip.
 * @param {{at: string | null | undefined, text?: string}} props
 */
export function Time({ at, text }) {
  if (!at) return null;
  return html`<time datetime=${at} title=${`${new Date(at).toISOString()} (UTC)`}>${text ?? local(at)}</time>`;
}

/**
 * A text of somebody else, in one line. Its direction is its own, so that it cannot turn what stands around it.
 * @param {{text: string, limit?: number}} props
 */
export function Foreign({ text, limit = 200 }) {
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return html`<bdi title=${cut === text ? undefined : text.slice(0, 2000)}>${cut}</bdi>`;
}

/**
 * A message of Jobtape: what stands between backticks is shown as code.
 * @param {{text: string}} props
 */
export function Message({ text }) {
  return text.split("`").map((part, n) => (n % 2 ? html`<code>${part.split(/(?<= )/).map(unbroken)}</code>` : part));
}

/** Return a word of a command: an option is in one line. @param {string} word */
function unbroken(word) {
  return word.startsWith("-") ? html`<span class="unbroken">${word}</span>` : word;
}

/** @param {{labels: Record<string, string> | null, linked?: boolean}} props */
export function Labels({ labels, linked = true }) {
  const entries = Object.entries(labels ?? {});
  if (!entries.length) return null;
  return html`<span class="labels">${entries.map(([name, value]) => {
    const text = html`<${Foreign} text=${`${name}: ${value}`} limit=${60} />`;
    return linked
      ? html`<a class="label" href=${link("jobs", { label: `${name}:${value}` })}>${text}</a>`
      : html`<span class="label">${text}</span>`;
  })}</span>`;
}

/**
 * Why something failed. `onRetry`: loads it again; a load that may succeed later is repeated without it.
 * @param {{problem: import("../core/api.js").Problem | null, onRetry?: () => void}} props
 */
export function ProblemBox({ problem, onRetry }) {
  if (problem === null || problem.status === 401) return null;
  const retried = problem.passing && onRetry !== undefined;
  // What is done anyway is no advice.
  const text = retried ? problem.message.replace("Try again; if it", "If it") : problem.message;
  return html`<div class="problem" role="alert">
    <strong>${problem.title}</strong>
    <p><${Message} text=${text.slice(0, 600)} /></p>
    ${retried && html`<p class="quiet">It is tried again automatically.</p>`}
    ${!problem.passing && onRetry && html`<button type="button" onClick=${onRetry}>Try again</button>`}
  </div>`;
}

/** @param {{title: string, children?: Children}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><p><strong>${title}</strong></p>${children}</div>`;
}

/**
 * A button that copies a text, and shows it to be copied by hand where the browser refuses.
 * @param {{text: () => string, children?: Children, title?: string, big?: boolean}} props
 */
export function CopyButton({ text, children, title, big = false }) {
  const [shown, setShown] = useState("");
  const [byHand, setByHand] = useState(/** @type {string | null} */ (null));
  useEffect(() => {
    if (!shown) return;
    const timer = setTimeout(() => setShown(""), 2000);
    return () => clearTimeout(timer);
  }, [shown]);
  async function onClick() {
    const value = text();
    if (await copy(value)) setShown("Copied");
    else setByHand(value);
  }
  return html`<button type="button" class=${big ? "" : "small"} title=${title} onClick=${onClick}>${shown || children}</button>
    ${
      byHand !== null &&
      html`<${Dialog} title="Copy" onClose=${() => setByHand(null)}>
      <p>This browser lets no page copy here. Select the text and copy it:</p>
      <textarea class="code" rows="8" readonly value=${byHand} aria-label="Text to copy"></textarea>
    <//>`
    }`;
}

/**
 * A modal dialog. Esc closes it.
 * @param {{title: string, onClose: () => void, wide?: boolean, children?: Children}} props
 */
export function Dialog({ title, onClose, wide = false, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} onClose=${onClose} aria-label=${title}>
    <header><h2>${title}</h2><button type="button" class="small" onClick=${onClose}>Close</button></header>
    ${children}
  </dialog>`;
}

/** Put commas between elements. @param {unknown[]} elements */
export function commas(elements) {
  return elements.map((one, n) => [n > 0 && ", ", one]);
}

const SHOWN = 20_000;

/**
 * A value as indented JSON. Of a very long one the beginning is shown until the viewer asks for all.
 * @param {{value: unknown, name: string}} props
 */
export function Json({ value, name }) {
  const [whole, setWhole] = useState(false);
  const text = typeof value === "string" && value.length > SHOWN ? JSON.stringify(value) : stringify(value, true);
  const cut = !whole && text.length > SHOWN;
  return html`<div class="json">
    <pre tabindex="0" aria-label=${name}>${cut ? `${text.slice(0, SHOWN)}…` : text}</pre>
    <div class="tools">
      ${cut && html`<button type="button" class="small" onClick=${() => setWhole(true)}>Show all ${size(text.length)}</button>`}
      <${CopyButton} text=${() => text}>Copy<//>
    </div>
  </div>`;
}

/** @param {number} length */
export function size(length) {
  if (length < 1000) return `${length} bytes`;
  return length < 1_000_000 ? `${(length / 1000).toFixed(1)} kB` : `${(length / 1_000_000).toFixed(1)} MB`;
}

/**
 * A section with a heading.
 * @param {{title: string, tools?: Children, children?: Children, class?: string}} props
 */
export function Section({ title, tools, children, class: name = "" }) {
  return html`<section class=${name} aria-label=${title}><header><h2>${title}</h2><div class="tools">${tools}</div></header>${children}</section>`;
}
