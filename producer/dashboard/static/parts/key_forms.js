/** Forms that create an API key, and that replace one. */
import { Problem, request } from "../core/api.js";
import { html } from "../core/html.js";
import { useState } from "../vendor/hooks.js";
import { ProblemBox } from "./basics.js";
import { Row } from "./row.js";

/** @typedef {(made: {name: string, key: string}) => void} OnDone */

/** @type {[string, string][]} */
const SCOPES = [
  ["read", "every GET, and streams"],
  ["submit", "jobs, flows and signals"],
  ["manage", "everything else, also these keys"],
];
/** What is said of a field without a value. @type {Record<string, string>} */
const MISSING = { "/name": "Write a name.", "/scopes": "Choose at least one." };
const DAY = 86_400; // seconds
const LIVES = [
  ["", "never"],
  [String(DAY), "in a day"],
  [String(30 * DAY), "in 30 days"],
  [String(90 * DAY), "in 90 days"],
  [String(365 * DAY), "in a year"],
];
const OVERLAPS = [
  ["0", "at once"],
  ["3600", "in an hour"],
  [String(DAY), "in a day"],
  [String(7 * DAY), "in a week"],
];

/** Sends what a form has, once at a time. @param {OnDone} onDone */
function useSending(onDone) {
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  /** @param {string} path @param {unknown} body */
  async function send(path, body) {
    setProblem(null);
    setBusy(true);
    try {
      onDone((await request("POST", path, { body })).body);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setBusy(false);
    }
  }
  return { problem, busy, send };
}

/** @param {{onDone: OnDone}} props */
export function NewKeyForm({ onDone }) {
  const [texts, setTexts] = useState(/** @type {Record<string, string>} */ ({}));
  const [scopes, setScopes] = useState(/** @type {string[]} */ ([]));
  const { problem, busy, send } = useSending(onDone);
  const faults = Object.fromEntries(
    (problem?.errors ?? []).map((one) => {
      const pointer = one.pointer.replace(/\/\d+$/, "");
      return [pointer, MISSING[pointer] !== undefined && !given(pointer) ? MISSING[pointer] : one.detail];
    }),
  );

  /** @param {string} pointer */
  function given(pointer) {
    return pointer === "/scopes" ? scopes.length > 0 : Boolean(texts.name?.trim());
  }

  /** @param {string} name */
  const onText = (name) => (/** @type {any} */ event) =>
    setTexts((now) => ({ ...now, [name]: event.currentTarget.value }));
  /** @param {string} name @param {object} more */
  const input = (name, more) =>
    html`<input type="text" autocomplete="off" value=${texts[name] ?? ""} onInput=${onText(name)} ...${more} />`;
  /** @param {Event} event */
  function onSubmit(event) {
    event.preventDefault();
    send("keys", bodyOf(texts, scopes));
  }
  return html`<form onSubmit=${onSubmit} novalidate>
    <${Row} title="Name" required pointer="/name" faults=${faults} hint="Who uses it." control=${(/** @type {object} */ more) => input("name", more)} />
    <fieldset aria-describedby=${faults["/scopes"] === undefined ? undefined : "scopes-fault"}><legend>Scopes</legend>
      ${faults["/scopes"] !== undefined && html`<p class="fault" role="alert" id="scopes-fault">${faults["/scopes"]}</p>`}
      ${SCOPES.map(
        ([name, what]) =>
          html`<label class="choice wide"><input type="checkbox" checked=${scopes.includes(name)} onChange=${() =>
            setScopes((now) =>
              now.includes(name) ? now.filter((one) => one !== name) : [...now, name],
            )} /> ${name} <span class="quiet">${what}</span></label>`,
      )}</fieldset>
    <${Row} title="Job types" pointer="/types" faults=${faults} hint="Separated by commas. Without one: all." control=${(/** @type {object} */ more) => input("types", more)} />
    <${Row} title="Requests in a second" pointer="/rate" faults=${faults} hint="For each API process. Without a number: no limit." control=${(/** @type {object} */ more) => input("rate", { inputmode: "decimal", ...more })} />
    <${Row} title="Expires" pointer="/expires_in" faults=${faults} control=${(/** @type {object} */ more) => select(LIVES, texts.expires ?? "", onText("expires"), more)} />
    <${ProblemBox} problem=${problem?.errors.length ? null : problem} />
    <button type="submit" class="primary" disabled=${busy}>Create</button>
  </form>`;
}

/** @param {{id: string, name: string, onDone: OnDone}} props */
export function RotateForm({ id, name, onDone }) {
  const [overlap, setOverlap] = useState(String(DAY));
  const { problem, busy, send } = useSending(onDone);
  /** @param {Event} event */
  function onSubmit(event) {
    event.preventDefault();
    send(`keys/${id}/rotate`, { overlap: Number(overlap) });
  }
  return html`<form onSubmit=${onSubmit}>
    <p>Make a new key for <bdi>${name}</bdi>, with the same scopes and limits?</p>
    <${Row} title="The old key ends" pointer="/overlap" faults=${{}} control=${(/** @type {object} */ more) => select(OVERLAPS, overlap, (/** @type {any} */ event) => setOverlap(event.currentTarget.value), more)} />
    <${ProblemBox} problem=${problem} />
    <button type="submit" class="primary" disabled=${busy}>Rotate</button>
  </form>`;
}

/**
 * @param {string[][]} options values and texts
 * @param {string} value
 * @param {(event: any) => void} onChange
 * @param {object} more
 */
function select(options, value, onChange, more) {
  return html`<select value=${value} onChange=${onChange} ...${more}>${options.map(([one, text]) => html`<option value=${one}>${text}</option>`)}</select>`;
}

/**
 * @param {Record<string, string>} texts
 * @param {string[]} scopes
 */
function bodyOf(texts, scopes) {
  /** @type {Record<string, unknown>} */
  const body = { name: (texts.name ?? "").trim(), scopes };
  const types = (texts.types ?? "")
    .split(",")
    .map((one) => one.trim())
    .filter(Boolean);
  if (types.length) body.types = types;
  const rate = (texts.rate ?? "").trim();
  // What is no number goes to the API as it is, which says so at the field.
  if (rate) body.rate = Number.isFinite(Number(rate)) ? Number(rate) : rate;
  if (texts.expires) body.expires_in = Number(texts.expires);
  return body;
}
