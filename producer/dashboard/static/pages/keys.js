/** API keys: who has one and what for, and forms that make new ones. For keys with the scope `manage`. */
import { apiKey, get } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { CopyButton, Dialog, Empty, Foreign, ProblemBox, Time } from "../parts/basics.js";
import { Change } from "../parts/change.js";
import { NewKeyForm, RotateForm } from "../parts/key_forms.js";
import { useState } from "../vendor/hooks.js";

/**
 * @typedef {object} Key
 * @property {string} id
 * @property {string} name
 * @property {"active" | "expired" | "revoked"} state
 * @property {string[]} scopes
 * @property {string[]} types
 * @property {import("../core/types.js").Num | null} rate
 * @property {string} created_at
 * @property {string | null} expires_at
 * @property {string | null} revoked_at
 * @property {string | null} used_at
 * @property {string | null} old_until
 */

const PAUSE = 15_000; // milliseconds
/** The state of a job whose colour a key's state has. @type {Record<string, string>} */
const STATES = { active: "succeeded", expired: "retrying", revoked: "cancelled" };

export function Page() {
  const loaded = useLoad("keys", (signal) => get("keys", {}, signal));
  const [creating, setCreating] = useState(false);
  const [rotating, setRotating] = useState(/** @type {Key | null} */ (null));
  const [made, setMade] = useState(/** @type {{name: string, key: string} | null} */ (null));
  useEvery(loaded.reload, PAUSE);
  const items = /** @type {Key[] | null} */ (loaded.data?.items ?? null);
  // Whoever needed no key to come here has an API that asks nobody for one.
  const open = items !== null && apiKey.value === null;
  /** @param {{name: string, key: string}} answer */
  function onMade(answer) {
    setCreating(false);
    setRotating(null);
    setMade(answer);
    loaded.reload();
  }
  return html`
    <header class="title"><h1>API keys</h1><button type="button" class="primary" disabled=${obstacle({ publishes: false }) !== null || items === null || open} onClick=${() => setCreating(true)}>New key</button></header>
    ${open && html`<p class="verdict warn" role="status"><strong>This API answers everybody.</strong> Start it with <code>JOBTAPE_API_KEY</code>, then create keys.</p>`}
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      items === null
        ? !loaded.problem && html`<p class="loading">Loading …</p>`
        : items.length === 0
          ? html`<${Empty} title="There is no key yet"><p>Give each client a key of its own, so that you can limit it and take it away.</p><//>`
          : html`<table class="rows api-keys">
            <thead><tr><th>Key</th><th>Scopes</th><th>Job types</th><th class="num">Requests/s</th><th>State</th><th>Last used</th><th></th></tr></thead>
            <tbody>${items.map((one) => html`<${KeyRow} key=${one.id} one=${one} onRotate=${() => setRotating(one)} onDone=${loaded.reload} />`)}</tbody>
          </table>`
    }
    ${creating && html`<${Dialog} title="New key" onClose=${() => setCreating(false)}><${NewKeyForm} onDone=${onMade} /><//>`}
    ${rotating !== null && html`<${Dialog} title="Rotate" onClose=${() => setRotating(null)}><${RotateForm} id=${rotating.id} name=${rotating.name} onDone=${onMade} /><//>`}
    ${
      made !== null &&
      html`<${Dialog} title="Key" onClose=${() => setMade(null)}>
        <p>The key of <${Foreign} text=${made.name} />. <strong>It is not shown again.</strong></p>
        <p><code class="secret">${made.key}</code> <${CopyButton} text=${() => made.key}>Copy<//></p>
      <//>`
    }
  `;
}

/** @param {{one: Key, onRotate: () => void, onDone: () => void}} props */
function KeyRow({ one, onRotate, onDone }) {
  const { id, name, scopes, types, rate, state, used_at } = one;
  return html`<tr>
    <td class="name"><${Foreign} text=${name} /> <span class="quiet id">${id}</span></td>
    <td data-column="scopes">${scopes.join(", ")}</td>
    <td data-column="job types">${types.length ? html`<${Foreign} text=${types.join(", ")} />` : "all"}</td>
    <td class="num" data-column="requests/s">${rate === null ? "no limit" : Number(rate).toLocaleString("en")}</td>
    <td data-column="state"><span class=${`state ${STATES[state]}`}>${state}</span> <span class="quiet">${sinceOf(one)}</span></td>
    <td data-column="last used">${used_at === null ? "never" : html`<${Time} at=${used_at} />`}</td>
    <td class="actions">${
      state !== "revoked" &&
      html`<button type="button" class="small" disabled=${obstacle({ publishes: false }) !== null} onClick=${onRotate}>Rotate</button>
        <${Change} method="DELETE" path=${`keys/${id}`} publishes=${false} onDone=${onDone} ask=${`Revoke the key of ${name}? No request with it is answered any more, and its streams end.`}>Revoke<//>`
    }</td>
  </tr>`;
}

/** @param {Key} key */
function sinceOf({ state, expires_at, revoked_at, old_until }) {
  if (state === "revoked") return html`at <${Time} at=${revoked_at} />`;
  const parts = [];
  if (expires_at !== null) parts.push(html`${state === "expired" ? "at" : "expires"} <${Time} at=${expires_at} />`);
  if (old_until !== null && Date.parse(old_until) > Date.now())
    parts.push(html`the old key works until <${Time} at=${old_until} />`);
  return parts.map((part, n) => (n ? html`, ${part}` : part));
}
