/** What a group of failures is called. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { Foreign } from "./basics.js";

/** @param {{id: string}} props */
export function FailureName({ id }) {
  const { data } = useLoad(
    `failure ${id}`,
    (signal) =>
      /** @type {Promise<{items: import("../core/types.js").Failure[]}>} */ (
        get("failures", { id, limit: "1" }, signal)
      ),
  );
  const group = data?.items[0];
  if (group === undefined) return html`<span class="id">${id}</span>`;
  const message = group.message ? `: ${group.message}` : "";
  return html`<span title=${id}>${group.error} in ${group.type}<${Foreign} text=${message} limit=${80} /></span>`;
}
