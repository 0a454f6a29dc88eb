/** Loads what a page shows, and loads it again while the API does not answer. */
import { useCallback, useEffect, useRef, useState } from "../vendor/hooks.js";
import { apiKey, Problem } from "./api.js";

const FIRST_PAUSE = 1000; // milliseconds
const LONGEST_PAUSE = 4000;

/**
 * @template T
 * @typedef {object} Loaded
 * @property {T | null} data what was loaded last, also while a later request fails
 * @property {Problem | null} problem why the last request failed
 * @property {boolean} loading
 * @property {() => void} reload
 * @property {(data: T) => void} set show `data` as if it had been loaded
 */

/**
 * Load when `name` changes, and again after a failure that may pass. A change of `name` forgets what was loaded.
 * @template T
 * @param {string | null} name identifies what is loaded; null loads nothing
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @returns {Loaded<T>}
 */
export function useLoad(name, load) {
  const [state, setState] = useState({
    name,
    data: /** @type {T | null} */ (null),
    problem: /** @type {Problem | null} */ (null),
    loading: name !== null,
  });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const failures = useRef(0);
  const running = useRef(false);
  const again = useRef(false);
  const key = apiKey.value;

  useEffect(() => {
    if (name === null) return;
    const abort = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    running.current = true;
    again.current = false;
    const done = () => {
      running.current = false;
      if (again.current) timer = setTimeout(() => setTurn((n) => n + 1));
    };
    setState((now) =>
      now.name === name ? { ...now, loading: true } : { name, data: null, problem: null, loading: true },
    );
    latest.current(abort.signal).then(
      (data) => {
        failures.current = 0;
        if (abort.signal.aborted) return;
        setState({ name, data, problem: null, loading: false });
        done();
      },
      (error) => {
        if (abort.signal.aborted) return;
        const problem =
          error instanceof Problem ? error : new Problem(0, { title: "Error in this page", detail: String(error) });
        if (!(error instanceof Problem)) console.error(error);
        setState((now) => ({ ...now, name, problem, loading: false }));
        if (!problem.passing) return done();
        running.current = false;
        failures.current += 1;
        timer = setTimeout(
          () => setTurn((n) => n + 1),
          Math.min(FIRST_PAUSE * 2 ** (failures.current - 1), LONGEST_PAUSE),
        );
      },
    );
    return () => {
      abort.abort();
      running.current = false;
      clearTimeout(timer);
    };
  }, [name, turn, key]);

  const reload = useCallback(() => {
    // A slow answer is waited for: if each reload began again, none would ever come.
    if (running.current) again.current = true;
    else setTurn((n) => n + 1);
  }, []);
  const set = useCallback((/** @type {T} */ data) => setState((now) => ({ ...now, data })), []);
  const current = state.name === name;
  return {
    data: current ? state.data : null,
    problem: current ? state.problem : null,
    loading: current ? state.loading : name !== null,
    reload,
    set,
  };
}

/**
 * Call `action` every `pause` milliseconds while the page is visible, and at once when it becomes visible.
 * @param {() => void} action
 * @param {number | null} pause null: never
 */
export function useEvery(action, pause) {
  const latest = useRef(action);
  latest.current = action;
  useEffect(() => {
    if (pause === null) return;
    const call = () => {
      if (!document.hidden) latest.current();
    };
    const timer = setInterval(call, pause);
    document.addEventListener("visibilitychange", call);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", call);
    };
  }, [pause]);
}
