/** The strip below every page: which time is shown, and a slider over the history that is kept. */
import { Problem } from "../core/api.js";
import { stale } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery } from "../core/load.js";
import { asOf, change } from "../core/route.js";
import { cursorAt, firstTime, histogram, readHistory, shownTime, stepper } from "../core/time_travel.js";
import { fromInput, local, toInput } from "../core/times.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { Dialog } from "./basics.js";

const STEPS = 1000;
const WIDTH = 1000;
const PAUSE = 250; // milliseconds after the last movement of the handle
const REFRESH = 60_000;
const FRAME = 700; // milliseconds for each event while it plays

/** @param {{past: boolean}} props `past`: whether the page can show another time than now */
export function TimeStrip({ past }) {
  const at = asOf.value;
  const [dragged, setDragged] = useState(/** @type {number | null} */ (null));
  const [fault, setFault] = useState("");
  const [playing, setPlaying] = useState(false);
  const [asking, setAsking] = useState(false);
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  const begin = firstTime.value;
  const end = Date.now();

  // While the API is away, the strip stays as it was.
  const refresh = () => {
    if (past) readHistory().catch(() => {});
  };
  useEffect(refresh, [past]);
  useEvery(refresh, REFRESH);
  useEffect(() => setFault(""), [at]);

  /** @param {-1 | 1} by */
  async function step(by) {
    try {
      await stepper.value?.(by);
    } catch (error) {
      setPlaying(false);
      setFault(error instanceof Problem ? error.message : String(error));
    }
  }

  useEffect(() => {
    if (at === null) setPlaying(false);
    if (!playing || at === null) return;
    const next = setTimeout(() => step(1), FRAME);
    return () => clearTimeout(next);
  }, [playing, at]);

  useEffect(() => {
    /** @param {KeyboardEvent} event */
    function onKey(event) {
      if (event.altKey || event.ctrlKey || event.metaKey || stepper.value === null) return;
      const { target } = event;
      if (target instanceof Element && target.closest("input, textarea, select, pre, dialog, summary")) return;
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") step(event.key === "ArrowLeft" ? -1 : 1);
      else if (event.key === " " && asOf.value !== null && !(target instanceof Element && target.closest("button, a")))
        setPlaying((now) => !now);
      else return;
      event.preventDefault();
    }
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  /** @param {number} position */
  function onInput(position) {
    setDragged(position);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => show(position), PAUSE);
  }

  /** @param {number} position */
  async function show(position) {
    if (begin !== null) await showAt(position >= STEPS ? null : begin + ((Date.now() - begin) * position) / STEPS);
  }

  /** @param {number | null} time milliseconds since 1970; null: now */
  async function showAt(time) {
    try {
      change({ as_of: time === null ? null : await cursorAt(time) }, { replace: asOf.value !== null });
      setFault("");
    } catch (error) {
      setFault(error instanceof Problem ? error.message : String(error));
    } finally {
      setDragged(null);
    }
  }

  if (!past) return null;
  const stepless =
    stepper.value === null ? "Only the list of jobs and the page of a job move event by event. Use the slider." : "";
  const newest = at === null ? "This is now: there is no later event. Go back first." : "";
  const shown = shownTime.value;
  const place =
    dragged ??
    (at === null || begin === null || shown === null
      ? STEPS
      : Math.round(((shown - begin) / Math.max(end - begin, 1)) * STEPS));
  const draggedTime = dragged === null || begin === null ? null : begin + ((end - begin) * dragged) / STEPS;
  return html`<footer class=${`strip ${at === null ? "" : "on"}`} aria-label="Time">
    <button type="button" class="small" aria-label="One event back" title=${stepless || "One event back (←)"} disabled=${stepless !== ""} onClick=${() => step(-1)}>←</button>
    <button type="button" class="small" aria-label="One event forward" title=${stepless || newest || "One event forward (→)"} disabled=${stepless !== "" || newest !== ""} onClick=${() => step(1)}>→</button>
    <button type="button" class="small" aria-pressed=${playing} title=${stepless || newest || "Move on by itself, event by event (space)"} disabled=${stepless !== "" || newest !== ""} onClick=${() => setPlaying(!playing)}>${playing ? "Stop" : "Play"}</button>
    <span class="bound">${begin === null ? "" : local(begin)}</span>
    <span class="track"><${Histogram} begin=${begin} end=${end} />
    <input type="range" min="0" max=${STEPS} value=${place} disabled=${begin === null} aria-label="Show everything as of" aria-valuetext=${at === null ? "now" : shown === null ? `cursor ${at}` : local(shown)}
      onInput=${(/** @type {any} */ event) => onInput(Number(event.currentTarget.value))} /></span>
    <span class="bound">now</span>
    <p class="asof" role="status">${
      draggedTime !== null
        ? local(draggedTime)
        : at === null
          ? stale.value === null
            ? "Live"
            : `Stale${stale.value.since === null ? "" : ` since ${local(stale.value.since)}`}`
          : html`<strong>As of ${shown === null ? "" : local(shown)}</strong> <span class="quiet">${/^\d+$/.test(at) ? `cursor ${at}` : ""}</span>`
    }</p>
    <button type="button" class="small" title="Show everything as it was at a time" disabled=${begin === null} onClick=${() => setAsking(true)}>Go to …</button>
    ${at !== null && html`<button type="button" class="primary small" onClick=${() => change({ as_of: null })}>Go live</button>`}
    ${fault && html`<p class="fault" role="alert">${fault}</p>`}
    ${
      asking &&
      begin !== null &&
      html`<${TimeDialog} begin=${begin} at=${shown ?? end} onClose=${() => setAsking(false)} onTime=${(
        /** @type {number} */ time,
      ) => {
        setAsking(false);
        showAt(time);
      }} />`
    }
  </footer>`;
}

/** Asks for a time. @param {{begin: number, at: number, onTime: (time: number) => void, onClose: () => void}} props */
function TimeDialog({ begin, at, onTime, onClose }) {
  const [text, setText] = useState(toInput(new Date(at).toISOString()));
  const time = Date.parse(fromInput(text) ?? "");
  const fault =
    time > Date.now()
      ? "This time has not come yet."
      : time < begin
        ? `What happened before ${local(begin)} is not kept.`
        : "";
  /** @param {Event} event */
  function onSubmit(event) {
    event.preventDefault();
    if (!Number.isNaN(time) && fault === "") onTime(time);
  }
  return html`<${Dialog} title="Go to a time" onClose=${onClose}>
    <form onSubmit=${onSubmit} novalidate>
      <div class="field"><label><span class="name">Date and time</span>
        <input type="datetime-local" step="1" value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} /></label>
        ${fault === "" ? html`<p class="hint">In your time zone. The history begins at ${local(begin)}.</p>` : html`<p class="fault" role="alert">${fault}</p>`}</div>
      <button type="submit" class="primary" disabled=${Number.isNaN(time) || fault !== ""}>Go there</button>
    </form>
  <//>`;
}

/** How much happened when, drawn above the slider; what failed is drawn over it. @param {{begin: number | null, end: number}} props */
function Histogram({ begin, end }) {
  const known = histogram.value;
  if (begin === null || known === null || end <= begin) return null;
  const { since, step, counts, failed } = known;
  const highest = Math.max(...counts, 1);
  const width = (step / (end - begin)) * WIDTH;
  const bars = (/** @type {number[]} */ values) =>
    values
      .map((value, n) => {
        if (value === 0) return "";
        // The root makes quiet times visible beside busy ones.
        const height = Math.max(Math.sqrt(value / highest) * 20, 1);
        const x = ((since + n * step - begin) / (end - begin)) * WIDTH;
        return `M${x.toFixed(1)} 20v${(-height).toFixed(1)}h${Math.max(width, 1).toFixed(1)}V20z`;
      })
      .join("");
  return html`<svg viewBox=${`0 0 ${WIDTH} 20`} preserveAspectRatio="none" aria-hidden="true"><path d=${bars(counts)} /><path class="bad" d=${bars(failed)} /></svg>`;
}
