/** A form that creates a webhook. */
import { Problem, request } from "../core/api.js";
import { html } from "../core/html.js";
import { useState } from "../vendor/hooks.js";
import { ProblemBox } from "./basics.js";
import { Row } from "./row.js";

const NAMES = ["succeeded", "failed", "cancelled", "retrying", "started", "submitted"];

/** @param {{onDone: (made: {secret: string}) => void}} props */
export function WebhookForm({ onDone }) {
  const [texts, setTexts] = useState(/** @type {Record<string, string>} */ ({ body: "thin" }));
  const [events, setEvents] = useState(/** @type {string[]} */ ([]));
  const [faults, setFaults] = useState(/** @type {Record<string, string>} */ ({}));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);

  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setProblem(null);
    setFaults({});
    setBusy(true);
    try {
      onDone((await request("POST", "webhooks", { body: bodyOf(texts, events) })).body);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setFaults(Object.fromEntries(error.errors.map((one) => [one.pointer, one.detail])));
      setBusy(false);
    }
  }

  /** @param {string} name */
  const onText = (name) => (/** @type {any} */ event) =>
    setTexts((now) => ({ ...now, [name]: event.currentTarget.value }));
  /** @param {string} name @param {object} more */
  const input = (name, more) =>
    html`<input type="text" autocomplete="off" value=${texts[name] ?? ""} onInput=${onText(name)} ...${more} />`;
  return html`<form onSubmit=${onSubmit} novalidate>
    <${Row} title="URL" required pointer="/url" faults=${faults} hint="https://host/path" control=${(/** @type {object} */ more) => input("url", more)} />
    <fieldset><legend>Events</legend><p class="quiet">Without a choice: succeeded, failed and cancelled.</p>${NAMES.map(
      (name) =>
        html`<label class="choice"><input type="checkbox" checked=${events.includes(name)} onChange=${() =>
          setEvents((now) =>
            now.includes(name) ? now.filter((one) => one !== name) : [...now, name],
          )} /> ${name}</label> `,
    )}</fieldset>
    <${Row} title="Job types" pointer="/filter/types/0" faults=${faults} hint="Separated by commas; mail.* is possible." control=${(/** @type {object} */ more) => input("types", more)} />
    <${Row} title="Label" pointer="/filter/labels" faults=${faults} hint="name:value" control=${(/** @type {object} */ more) => input("label", more)} />
    <${Row} title="Body" pointer="/body" faults=${faults} control=${(/** @type {object} */ more) =>
      html`<select value=${texts.body} onChange=${onText("body")} ...${more}><option value="thin">which event it was</option><option value="full">also what the event contains</option></select>`} />
    <${Row} title="Description" pointer="/description" faults=${faults} control=${(/** @type {object} */ more) => input("description", more)} />
    <${ProblemBox} problem=${problem} />
    <button type="submit" class="primary" disabled=${busy}>Create</button>
  </form>`;
}

/**
 * @param {Record<string, string>} texts
 * @param {string[]} events
 */
function bodyOf(texts, events) {
  /** @type {Record<string, unknown>} */
  const filter = {};
  if (events.length) filter.events = events;
  const types = (texts.types ?? "")
    .split(",")
    .map((one) => one.trim())
    .filter(Boolean);
  if (types.length) filter.types = types;
  const label = (texts.label ?? "").trim();
  const colon = label.indexOf(":");
  if (label)
    filter.labels = { [label.slice(0, colon < 0 ? undefined : colon)]: colon < 0 ? "" : label.slice(colon + 1) };
  return {
    url: (texts.url ?? "").trim(),
    filter,
    body: texts.body,
    description: (texts.description ?? "").trim(),
  };
}
