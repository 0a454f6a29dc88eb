/** Whether a page follows what happens. */
import { stale } from "../core/health.js";
import { html } from "../core/html.js";
import { local } from "../core/times.js";

/** @param {{on: boolean}} props `on`: whether the page hears of changes */
export function Live({ on }) {
  if (stale.value !== null) {
    const { since } = stale.value;
    return html`<span class="live" title="The view gets no news. The mark at the top says why.">stale${since !== null && ` since ${local(since)}`}</span>`;
  }
  return html`<span class=${`live ${on ? "on" : ""}`}>${on ? "live" : "not live"}</span>`;
}
