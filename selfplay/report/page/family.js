// The family of players on a timeline: a lane for each learner, its past selves as dots, lines to parents.
const DOT = 5, ROW = 13, MARGIN = 14;

function familySection(report) {
  const { players } = report;
  const out = readout();
  const state = { chosen: -1, places: [], dots: [], lines: [] };
  const host = el("div", { class: "family", tabindex: "0", role: "group", "aria-label": "Family of players. Left and right arrow keys move through them in the order in which they joined." });
  const last = Math.max(report.iterations.at(-1) ?? 0, ...players.map((p) => p.iteration), 1);
  const choose = (k) => {
    state.chosen = Math.max(0, Math.min(players.length - 1, k));
    out.textContent = playerWords(players, state.chosen);
    highlight();
  };
  const highlight = () => {
    const line = new Set();
    for (let k = state.chosen; k >= 0 && !line.has(k); k = players[k].parent) line.add(k);
    state.dots.forEach((dot, k) => dot.classList.toggle("chosen", k === state.chosen));
    state.lines.forEach(([k, path]) => path.setAttribute("stroke-opacity", line.has(k) ? 1 : 0.35));
  };
  host.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(state.chosen + step);
  });
  drawn(host, (width) => {
    Object.assign(state, drawFamily(players, last, width, choose));
    host.replaceChildren(state.root);
    highlight();
  });
  const resets = players.filter((p) => p.is_reset).length;
  const note = `Each learner's past selves at the iteration in which they joined, with a line from their parent; diamonds learn; pale: left the pool or gave way.${resets ? " Ringed: began anew." : ""}`;
  return section("family", "Family", note, host, out);
}

function drawFamily(players, last, width, choose) {
  const isBot = (p) => p.kind === "bot";
  const lanes = [...new Set([...players.filter((p) => !isBot(p)), ...players.filter(isBot)].map((p) => p.lineage))];
  const wide = Math.max(width, 280);
  const scale = (iteration) => MARGIN + (iteration / last) * (wide - 2 * MARGIN);
  const places = [], heights = lanes.map(() => 1), busy = lanes.map(() => []);
  players.forEach((player, k) => {
    const lane = lanes.indexOf(player.lineage);
    const x = scale(player.kind === "learning" ? player.retired ?? last : player.iteration);
    // The first row of the lane where the dot does not cover another; with very many, they share rows.
    let row = busy[lane].findIndex((end) => x - end >= 2 * DOT + 1);
    if (row < 0) row = busy[lane].length < 6 ? busy[lane].length : k % 6;
    busy[lane][row] = x;
    heights[lane] = Math.max(heights[lane], row + 1);
    places[k] = { x, lane, row };
  });
  const tops = [];
  let height = 4;
  heights.forEach((rows, lane) => { tops[lane] = height + 16; height += 16 + rows * ROW + 8; });
  for (const place of places) place.y = tops[place.lane] + place.row * ROW + ROW / 2;
  const root = svg("svg", { width: wide, height: height + 18, role: "img", "aria-label": `${players.length} players in ${lanes.length} lanes` });
  lanes.forEach((lane, k) => root.append(
    svg("text", { x: MARGIN - 8, y: tops[k] - 4 }, lane),
    svg("line", { class: "grid-line", x1: 0, x2: wide, y1: tops[k] - 15, y2: tops[k] - 15 })));
  for (const tick of ticks(0, last, Math.max(2, Math.floor(wide / 130))))
    root.append(svg("text", { x: Math.min(scale(tick), wide - 24), y: height + 12, "text-anchor": "middle" }, brief(tick)));
  const lines = players.flatMap((player, k) => {
    if (player.parent < 0) return [];
    const from = places[player.parent], to = places[k];
    const middle = (from.x + to.x) / 2;
    const path = svg("path", {
      d: `M${from.x} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}`, fill: "none",
      stroke: from.lane === to.lane ? seriesColour(to.lane) : "var(--soft)", "stroke-dasharray": from.lane === to.lane ? null : "3 3",
    });
    root.append(path);
    return [[k, path]];
  });
  const dots = players.map((player, k) => {
    const { x, y, lane } = places[k], fill = seriesColour(lane);
    const paint = {
      fill: player.is_reset ? "var(--card)" : fill, stroke: fill, "stroke-width": player.is_reset ? 2.5 : 1,
      opacity: player.retired == null ? 1 : 0.5, onpointerenter: () => choose(k), onpointerdown: () => choose(k),
    };
    const dot = player.kind === "learning"
      ? svg("path", { d: `M${x} ${y - 7}L${x + 7} ${y}L${x} ${y + 7}L${x - 7} ${y}Z`, ...paint })
      : svg("circle", { cx: x, cy: y, r: DOT - 1, ...paint });
    root.append(dot);
    return dot;
  });
  return { root, places, dots, lines };
}

function playerWords(players, k) {
  const p = players[k];
  const children = players.filter((other) => other.parent === k).length;
  const kind = { learning: p.retired == null ? "learns" : "learned", snapshot: "past self", bot: "bot" }[p.kind];
  return [
    `${p.name}: ${kind}`,
    p.kind === "snapshot" ? `joined in iteration ${whole(p.iteration)}` : null,
    p.agent_steps != null ? `${brief(p.agent_steps)} decisions` : null,
    p.parentName ? `parent ${p.parentName}` : null,
    p.is_reset ? "began anew" : null,
    children ? `parent of ${children}` : null,
    p.retired != null ? `${p.kind === "learning" ? "gave way to a fresh learner" : "left the pool"} in iteration ${whole(p.retired)}` : null,
    p.rating ? `rating ${interval(p.rating)}` : null,
    p.strength ? `from all matches ${interval(p.strength)}` : null,
  ].filter(Boolean).join(", ");
}
