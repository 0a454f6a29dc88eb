/** What a group of failures is called, and where it leads. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { Foreign } from "./basics.js";

/** Return the address of the jobs of a group; of its last job, if attempts failed and no job. @param {import("../core/types.js").Failure} group */
export function linkOf({ id, jobs, example }) {
  return jobs === 0 && example !== null ? link(`jobs/${example}`) : link("jobs", { failure: id });
}

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
