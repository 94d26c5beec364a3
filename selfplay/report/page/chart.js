// A line chart with bands, dots, horizontal lines and a cursor for pointer and arrow keys.
//
// alone: the points are not of one line. spec: { label, height, series: [{ name, colour, x, y, low?, high?, dots?, alone?, dashed?, bars? }], lines: [{ name, y }],
//         formatX, formatY, domain: [low?, high?], describe? }
function lineChart(spec) {
  const out = readout();
  const host = el("div", {
    class: "chart", tabindex: "0", role: "group",
    "aria-label": `${spec.label}. Left and right arrow keys move through the points.`,
  });
  const xs = [...new Set(spec.series.flatMap((series) => series.x))].sort((a, b) => a - b);
  const state = { place: -1, frame: null };
  const legend = spec.series.length > 1 || spec.legend ? el("div", { class: "legend" },
    ...spec.series.map((s) => el("span", {}, el("i", { style: `background:${s.colour}` }), s.name))) : null;

  const move = (place) => {
    if (!xs.length) return;
    state.place = Math.max(0, Math.min(xs.length - 1, place));
    mark(state.frame, xs[state.place]);
    out.textContent = (spec.describe ?? described)(xs[state.place], state.place);
  };
  const described = (x) => {
    const found = spec.series.flatMap((series) => {
      const k = series.x.indexOf(x);
      if (k < 0 || series.y[k] == null) return [];
      const range = series.low ? interval([series.y[k], series.low[k], series.high[k]]) : spec.formatY(series.y[k]);
      return [spec.series.length > 1 ? `${series.name} ${range}` : range];
    });
    return `${spec.formatX(x)}: ${found.join(", ") || "nothing"}`;
  };
  host.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    move(state.place + step);
  });
  const point = (event) => {
    const { scaleX } = state.frame;
    const left = event.clientX - host.getBoundingClientRect().left;
    let best = 0;
    xs.forEach((x, k) => { if (Math.abs(scaleX(x) - left) < Math.abs(scaleX(xs[best]) - left)) best = k; });
    move(best);
  };
  host.addEventListener("pointermove", point);
  host.addEventListener("pointerdown", point);
  drawn(host, (width) => {
    state.frame = frame(spec, xs, width);
    host.replaceChildren(drawChart(spec, state.frame));
    if (state.place >= 0) mark(state.frame, xs[state.place]);
  });
  return el("div", { class: "chart-box" }, legend, host, out);
}

/** Scales and margins of a chart `width` pixels wide. */
function frame(spec, xs, width) {
  const box = { left: 46, right: 10, top: 8, bottom: 22, width, height: spec.height };
  const values = spec.series.flatMap((s) => [...s.y, ...(s.low ?? []), ...(s.high ?? [])])
    .concat(spec.lines?.map((line) => line.y) ?? []).filter((v) => v != null);
  let low = spec.domain?.[0] ?? values.reduce((a, b) => Math.min(a, b), Infinity);
  let high = spec.domain?.[1] ?? values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(low <= high)) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const pad = (high - low) * 0.04;
  if (spec.domain?.[0] == null) low -= pad;
  if (spec.domain?.[1] == null) high += pad;
  const hasBars = spec.series.some((s) => s.bars);
  const first = (xs[0] ?? 0) - (hasBars ? 0.5 : 0), last = (xs.at(-1) ?? 1) + (hasBars ? 0.5 : 0);
  const inner = Math.max(width - box.left - box.right, 10);
  return {
    ...box, low, high, first, last,
    scaleX: (x) => box.left + (last > first ? (x - first) / (last - first) : 0.5) * inner,
    scaleY: (y) => box.top + ((high - y) / (high - low)) * (box.height - box.top - box.bottom),
  };
}

function drawChart(spec, f) {
  const root = svg("svg", { viewBox: `0 0 ${f.width} ${f.height}`, height: f.height, role: "img", "aria-label": spec.label });
  for (const y of ticks(f.low, f.high, Math.max(2, Math.floor(f.height / 45)))) {
    root.append(svg("line", { class: "grid-line", x1: f.left, x2: f.width - f.right, y1: f.scaleY(y), y2: f.scaleY(y) }),
      svg("text", { x: f.left - 6, y: f.scaleY(y) + 4, "text-anchor": "end" }, spec.tickY ? spec.tickY(y) : brief(y)));
  }
  for (const x of ticks(f.first, f.last || 1, Math.max(2, Math.floor(f.width / 130)))) {
    if (spec.tickX && !Number.isInteger(x)) continue;
    const text = spec.tickX ? spec.tickX(x) : brief(x);
    const place = Math.min(Math.max(f.scaleX(x), f.left + 3 * text.length), f.width - f.right - 3 * text.length);
    root.append(svg("text", { x: place, y: f.height - 6, "text-anchor": "middle" }, text));
  }
  for (const line of spec.lines ?? []) {
    const y = f.scaleY(line.y);
    root.append(svg("line", { class: "anchor-line", x1: f.left, x2: f.width - f.right, y1: y, y2: y }),
      svg("text", { x: f.width - f.right - 4, y: y - 4, "text-anchor": "end" }, line.name));
  }
  spec.series.forEach((series, k) => {
    if (series.low) root.append(band(series, f));
    root.append(...(series.bars ? bars(series, f, k, spec.series.length) : series.alone ? [] : [curve(series, f)]));
    if (series.dots) series.x.forEach((x, i) => {
      if (series.y[i] != null) root.append(svg("circle", { cx: f.scaleX(x), cy: f.scaleY(series.y[i]), r: series.x.length > 80 ? 1.5 : 3, fill: series.colour }));
    });
  });
  f.cursor = svg("line", { class: "cursor", y1: f.top, y2: f.height - f.bottom, visibility: "hidden" });
  root.append(f.cursor);
  return root;
}

/** The path through known points; a gap where one is not known. */
function curve(series, f) {
  let path = "", pen = "M";
  series.x.forEach((x, k) => {
    if (series.y[k] == null) { pen = "M"; return; }
    path += `${pen}${f.scaleX(x).toFixed(1)} ${f.scaleY(series.y[k]).toFixed(1)}`;
    pen = "L";
  });
  return svg("path", { d: path, fill: "none", stroke: series.colour, "stroke-width": 1.7, "stroke-linejoin": "round", "stroke-dasharray": series.dashed ? "6 4" : null });
}

/** The area between the ends of neighbours' intervals; one that nothing bounds is a line to the edge. */
function band(series, f) {
  const at = (k, y) => `${f.scaleX(series.x[k]).toFixed(1)} ${f.scaleY(y).toFixed(1)}`;
  const isBounded = (k) => !series.alone && series.y[k] != null && series.low[k] != null && series.high[k] != null;
  let area = "", open = "";
  for (let from = 0, k = 0; k <= series.x.length; k++) {
    if (k < series.x.length && isBounded(k)) continue;
    const run = Array.from({ length: k - from }, (_, i) => from + i);
    const ends = [...run.map((i) => at(i, series.high[i])), ...run.reverse().map((i) => at(i, series.low[i]))];
    if (run.length) area += `M${ends.join("L")}Z`;
    if (series.y[k] != null) open += `M${at(k, series.low[k] ?? f.low)}L${at(k, series.high[k] ?? f.high)}`;
    from = k + 1;
  }
  return svg("g", { opacity: 0.18 }, svg("path", { d: area, fill: series.colour, stroke: series.colour }),
    svg("path", { d: open, stroke: series.colour, "stroke-width": 2 }));
}

function bars(series, f, k, count) {
  const slot = f.scaleX(1) - f.scaleX(0), width = Math.max((slot * 0.8) / count, 1);
  return series.x.map((x, i) => {
    const top = f.scaleY(series.y[i] ?? 0);
    return svg("rect", { x: f.scaleX(x) - slot * 0.4 + k * width, y: top, width, height: Math.max(f.scaleY(0) - top, 0), fill: series.colour });
  });
}

function mark(f, x) {
  f.cursor.setAttribute("x1", f.scaleX(x));
  f.cursor.setAttribute("x2", f.scaleX(x));
  f.cursor.setAttribute("visibility", "visible");
}
