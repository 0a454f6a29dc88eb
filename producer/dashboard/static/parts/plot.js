/** Lines over time, with axes, values under the pointer, and a range to choose by dragging. */
import { html } from "../core/html.js";
import { clock } from "../core/times.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import uPlot from "../vendor/uplot.js";
import { Section } from "./basics.js";

/** @typedef {{name: string, tone: "blue" | "green" | "red" | "amber" | "violet" | "grey", values: (number | null)[], dashed?: boolean}} Line */

const HEIGHT = 170;
const NARROWEST = 6; // pixels of a range that was dragged and not clicked
const MOST_MARKS = 5;
const FIRST_MARK = 0.0001;
/** The marks of the axis of durations, in seconds: durations that have a short name, some ten times apart. */
const MARKS = new Map([
  [FIRST_MARK, "0.1 ms"],
  [0.001, "1 ms"],
  [0.01, "10 ms"],
  [0.1, "100 ms"],
  [1, "1 s"],
  [10, "10 s"],
  [60, "1 min"],
  [600, "10 min"],
  [3600, "1 h"],
  [36_000, "10 h"],
  [86_400, "1 d"],
  [864_000, "10 d"],
]);

/**
 * `times`: when the step of each value begins, in seconds since 1970. `known`: until when it is known what happened; the
 * step in which that is has a shade, with `unfinished` in the legend, and later ones have no value. `format`: shows a value
 * with its unit. `steps`: values are counts of their step; otherwise they are durations, on a logarithmic axis.
 * `summary`: what the legend shows of a line while the pointer is elsewhere. `onRange`: is called with two times.
 * @param {{title: string, times: number[], known: number, unfinished: string, lines: Line[], format: (value: number) => string, steps?: boolean, summary: (line: Line) => string, onRange: (since: number, until: number) => void}} props
 */
export function Plot({ title, times, known, unfinished, lines, format, steps = false, summary, onRange }) {
  const place = useRef(/** @type {HTMLDivElement | null} */ (null));
  const legend = useRef(/** @type {HTMLUListElement | null} */ (null));
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const end = endOf(times);
  const unsure = times.findLast((time) => time <= known) ?? end;
  const shaded = known < end;
  const latest = useRef({ format, onRange, unsure, shaded });
  latest.current = { format, onRange, unsure, shaded };
  const dark = useDark();
  const names = lines.map(({ name }) => name).join();

  useEffect(() => {
    const box = place.current;
    if (box === null || legend.current === null) return;
    // Only computed colours are known to a canvas: variables and light-dark() are not.
    const tones = [...legend.current.querySelectorAll("li:not(.shaded)")].map(
      (item) => getComputedStyle(item).borderLeftColor,
    );
    const { color, borderTopColor } = getComputedStyle(box);
    const axis = {
      stroke: color,
      font: "11px system-ui, sans-serif",
      grid: { stroke: borderTopColor, width: 1 },
      ticks: { stroke: borderTopColor, width: 1, size: 4 },
    };
    const made = new uPlot(
      {
        width: box.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { sync: { key: "times" }, y: false, drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
        scales: { y: steps ? { range: (_, __, most) => [0, Math.max(most * 1.05, 4)] } : { distr: 3, range: around } },
        axes: [
          { ...axis, size: 28, space: 70, values: (_, splits) => splits.map((time) => clock(time * 1000)) },
          {
            ...axis,
            size: 58,
            space: 30,
            incrs: steps
              ? [1, 2, 5].flatMap((n) => [...Array(9).keys()].map((power) => n * 10 ** power)).sort((a, b) => a - b)
              : undefined,
            values: (_, splits) =>
              // On a logarithmic axis, uPlot leaves out ticks that would overlap: those are null.
              splits.map((value) =>
                value === null ? "" : steps ? latest.current.format(value) : (MARKS.get(value) ?? ""),
              ),
            splits: steps ? undefined : (_, __, least, most) => marksOf(least, most),
            // By default uPlot labels powers of ten only.
            filter: steps ? undefined : (_, splits) => splits,
          },
        ],
        series: [
          {},
          ...lines.map(({ name, dashed }, n) => ({
            label: name,
            stroke: tones[n],
            width: 1.5,
            dash: dashed ? [4, 3] : undefined,
            paths: steps ? uPlot.paths.stepped?.({ align: 1 }) : undefined,
            points: steps ? { show: false } : { size: 6, show: true, fill: tones[n], filter: alone },
          })),
        ],
        hooks: {
          drawClear: [(own) => latest.current.shaded && shade(own, latest.current.unsure, borderTopColor)],
          setCursor: [(own) => setAt(own.cursor.idx ?? null)],
          setSelect: [
            (own) => {
              const { left, width } = own.select;
              if (width < NARROWEST) return;
              own.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              latest.current.onRange(own.posToVal(left, "x"), own.posToVal(left + width, "x"));
            },
          ],
        },
      },
      dataOf(times, known, lines, steps),
      box,
    );
    plot.current = made;
    const sizes = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT }));
    sizes.observe(box);
    return () => {
      sizes.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [names, steps, dark]);

  useEffect(() => {
    plot.current?.setData(dataOf(times, known, lines, steps));
  }, [times, known, lines]);

  const time = at === null ? undefined : times[Math.min(at, times.length - 1)];
  return html`<${Section} title=${title} class="plotted" tools=${html`<span class="quiet">${time === undefined ? "" : clock(time * 1000)}</span>`}>
    <ul class="legend" ref=${legend}>${lines.map((line) => {
      const value = time === undefined || time > known ? null : (line.values[times.indexOf(time)] ?? null);
      return html`<li class=${`tone-${line.tone} ${line.dashed ? "dashed" : ""}`}>${line.name} <strong>${at === null ? summary(line) : value !== null ? format(value) : time !== undefined && time > known ? "not known" : "none"}</strong></li>`;
    })}${shaded && html`<li class="shaded">${unfinished}</li>`}</ul>
    <div class="plot" ref=${place} role="img" aria-label=${`${title}. ${lines.map((line) => `${line.name}: ${summary(line)}`).join(", ")}`}></div>
  <//>`;
}

/** Return when the last step ends. @param {number[]} times */
function endOf(times) {
  const [last, before] = [times.at(-1) ?? 0, times.at(-2)];
  return before === undefined ? last : 2 * last - before;
}

/**
 * Return what uPlot draws: nothing of the steps that begin after `known`. A count lasts until its step ends, so the last
 * one gets an end as well.
 * @param {number[]} times
 * @param {number} known
 * @param {Line[]} lines
 * @param {boolean} steps
 * @returns {uPlot.AlignedData}
 */
function dataOf(times, known, lines, steps) {
  const begun = times.filter((time) => time <= known).length;
  const ended = lines.map(({ values }) =>
    [...values, null].map((value, n) => (n < begun ? value : steps && n === begun ? (values[n - 1] ?? null) : null)),
  );
  return /** @type {uPlot.AlignedData} */ ([[...times, endOf(times)], ...ended]);
}

/** Shade a plot from a time on. @param {uPlot} plot @param {number} from seconds since 1970 @param {string} colour */
function shade(plot, from, colour) {
  const { ctx, bbox } = plot;
  const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
  ctx.save();
  ctx.globalAlpha = 0.45;
  ctx.fillStyle = colour;
  ctx.fillRect(left, bbox.top, bbox.left + bbox.width - left, bbox.height);
  ctx.restore();
}

/**
 * Return the positions of the values of a series without a neighbour, which no line shows.
 * @param {uPlot} plot
 * @param {number} series
 */
function alone(plot, series) {
  const values = plot.data[series] ?? [];
  const known = (/** @type {number} */ n) => typeof values[n] === "number";
  return [...values.keys()].filter((n) => known(n) && !known(n - 1) && !known(n + 1));
}

/** Return the marks of the axis of durations from `least` to `most`: all, or every second one with the last. @param {number} least @param {number} most */
function marksOf(least, most) {
  const marks = [...MARKS.keys()].filter((mark) => mark >= least && mark <= most);
  return marks.length <= MOST_MARKS ? marks : marks.filter((_, n) => (marks.length - 1 - n) % 2 === 0);
}

/**
 * Return the marks of the axis of durations between which all values are; nulls when there is no value.
 * @param {uPlot} _
 * @param {number | null} least in seconds
 * @param {number | null} most
 * @returns {[number, number] | [null, null]}
 */
function around(_, least, most) {
  if (least === null || most === null) return [null, null];
  const marks = [...MARKS.keys()];
  const low = marks.findLast((mark) => mark <= least) ?? FIRST_MARK;
  return [low, marks.find((mark) => mark >= most && mark > low) ?? most];
}

/** Whether the system asks for dark pages. */
function useDark() {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const onChange = () => setDark(query.matches);
    query.addEventListener("change", onChange);
    return () => query.removeEventListener("change", onChange);
  }, []);
  return dark;
}
