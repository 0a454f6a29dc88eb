/** Rules: schedules and changed limits, which are read again and again. */
import { useRef } from "../vendor/hooks.js";
import { get } from "./api.js";
import { useEvery, useLoad } from "./load.js";

const PAUSE = 5000; // milliseconds

/**
 * Load the rules at `path` as the view has them, every few seconds. `onChanged`: call it after a change of one; the
 * next load waits until the view has it.
 * @param {string} path
 */
export function useRules(path) {
  const changed = useRef(false);
  const loaded = useLoad(path, async (signal) => {
    const found = await get(path, changed.current ? {} : { committed: "true" }, signal);
    changed.current = false;
    return found;
  });
  useEvery(loaded.reload, PAUSE);
  const onChanged = () => {
    changed.current = true;
    loaded.reload();
  };
  return { ...loaded, onChanged };
}
