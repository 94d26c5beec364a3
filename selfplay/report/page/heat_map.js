// How every player fared against every other, as a picture of one cell a pair.

function decoded(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
}

/** What is known of row `player` against column `other`, at player * size + other; null where nothing is. */
function payoffCells({ cells, returns, hasWinners }, size) {
  const bytes = decoded(cells), means = new Float32Array(decoded(returns).buffer);
  const found = new Array(size * size).fill(null);
  let place = 0, at = 0, number = 0;
  const next = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    place += next();
    if (hasWinners) {
      const wins = next(), draws = next(), losses = next(), matches = wins + draws + losses;
      found[place] = { wins, draws, losses, matches, value: (wins + draws / 2) / matches };
    } else {
      found[place] = { matches: next(), value: means[number++] };
    }
  }
  return found;
}

const ORDERS = {
  age: () => (a, b) => a - b,
  rating: (players) => {
    const strength = players.map((p) => p.strength?.[0] ?? p.rating?.[0] ?? -Infinity);
    return (a, b) => strength[b] - strength[a] || a - b;
  },
  name: (players) => (a, b) => players[a].name.localeCompare(players[b].name, "en", { numeric: true }),
};

function payoffSection(report) {
  const { players, payoffs } = report, size = players.length;
  const cells = payoffCells(payoffs, size);
  const known = cells.filter((cell) => cell);
  const what = payoffs.hasWinners ? "score" : "mean return";
  if (!known.length) return section("payoffs", "Payoffs", "No matches between players have been recorded.");
  const values = known.map((cell) => cell.value);
  const range = payoffs.hasWinners ? [0, 1] : [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const scaled = (value) => (range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 0.5);
  const map = heatMap({ players, cells, scaled, hasWinners: payoffs.hasWinners });
  const sort = el("select", { onchange: () => map.order(sort.value) },
    el("option", { value: "age" }, "age"), el("option", { value: "rating" }, "rating"), el("option", { value: "name" }, "name"));
  const large = el("input", { type: "checkbox", onchange: () => map.enlarge(large.checked) });
  const { loss, even, win } = { loss: "rgb(var(--loss))", even: "rgb(var(--even))", win: "rgb(var(--win))" };
  const left = report.numLeftOut ? ` ${whole(report.numLeftOut)} of the league's past selves are left out, evenly.` : "";
  return section("payoffs", "Payoffs",
    `Row against column, ${what} of the row, all matches and seats.${payoffs.hasWinners ? "" : " This game has no winners."}${left} Point, tap or use the arrow keys.`,
    el("div", { class: "controls" }, el("label", {}, "Sort by", sort), el("label", {}, large, "Enlarge")),
    el("div", { class: "legend" },
      el("span", {}, precise(range[0]), el("i", { class: "ramp", style: `background:linear-gradient(90deg,${loss},${even},${win})` }), precise(range[1])),
      el("span", {}, el("i", { class: "swatch stripes" }), "never met")),
    map.element, map.out);
}

function heatMap({ players, cells, scaled, hasWinners }) {
  const size = players.length;
  const canvas = el("canvas", { tabindex: "0", role: "img" });
  const frameBox = el("div", { class: "map-frame" }, canvas);
  const host = el("div", {}, frameBox);
  const out = readout();
  const state = { order: players.map((_, k) => k), row: -1, column: -1, pinned: false, large: false, geometry: null, picture: null };

  const draw = (width) => {
    state.geometry = mapGeometry(width, size, state.large, players);
    state.picture = mapPicture(state.order, cells, scaled);
    paint();
  };
  const paint = () => paintMap(canvas, state, players);
  const choose = (row, column) => {
    [state.row, state.column] = [row, column].map((k) => Math.max(0, Math.min(size - 1, k)));
    paint();
    out.textContent = cellWords(players[state.order[state.row]], players[state.order[state.column]],
      cells[state.order[state.row] * size + state.order[state.column]], hasWinners);
    canvas.setAttribute("aria-label", `Payoffs of ${size} players. ${out.textContent}`);
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect(), { gutter, cell } = state.geometry;
    return [event.clientY - box.top - gutter.top, event.clientX - box.left - gutter.left].map((v) => Math.floor(v / cell));
  };
  const isInside = (place) => place.every((k) => k >= 0 && k < size);
  canvas.addEventListener("pointermove", (event) => {
    if (!state.pinned && isInside(at(event))) choose(...at(event));
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (!isInside(at(event))) return;
    const [row, column] = at(event);
    state.pinned = !(state.pinned && row === state.row && column === state.column);
    choose(row, column);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -size], End: [0, size] }[event.key];
    if (event.key === "Escape") state.pinned = false;
    if (!step) return;
    event.preventDefault();
    state.pinned = true;
    choose(Math.max(state.row, 0) + step[0], Math.max(state.column, 0) + step[1]);
  });
  canvas.setAttribute("aria-label", `Payoffs of ${size} players. Arrow keys move through the pairs.`);
  drawn(host, draw);
  return {
    element: host, out,
    order: (name) => {
      state.order.sort(ORDERS[name](players));
      state.row = state.column = -1;
      out.textContent = "";
      draw(host.clientWidth);
    },
    enlarge: (large) => { state.large = large; draw(host.clientWidth); },
  };
}

const MOST_PIXELS = 2400; // of a side: a larger canvas takes hundreds of megabytes
const MOST_NAMED = 40;
const SHADES = 200; // even, so that 1/2 is one

function mapGeometry(width, size, large, players) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "11px system-ui, sans-serif";
  const longest = players.reduce((most, p) => Math.max(most, pen.measureText(p.name).width), 0) + 8;
  const named = size <= MOST_NAMED && (width - longest) / size >= 12;
  const gutter = named ? { left: longest, top: longest } : { left: 0, top: 0 };
  const room = Math.min(width, 760) - gutter.left;
  const fit = Math.min(room / size, 64);
  const cell = large ? Math.max(fit, Math.min(24, MOST_PIXELS / size)) : fit;
  const side = cell * size;
  const density = Math.min(devicePixelRatio || 1, Math.max(1, MOST_PIXELS / (side + gutter.left)));
  return { gutter, cell, side, density, named };
}

/** One pixel a pair; pairs that never met are transparent. */
function mapPicture(order, cells, scaled) {
  const size = order.length, colours = payoffColours();
  const ramp = Array.from({ length: SHADES + 1 }, (_, k) => blended(colours, k / SHADES));
  const picture = el("canvas", { width: size, height: size });
  const pen = picture.getContext("2d"), pixels = pen.createImageData(size, size);
  order.forEach((player, row) => order.forEach((other, column) => {
    const cell = cells[player * size + other];
    if (!cell) return;
    const place = 4 * (row * size + column), [red, green, blue] = ramp[Math.round(SHADES * scaled(cell.value))];
    pixels.data[place] = red;
    pixels.data[place + 1] = green;
    pixels.data[place + 2] = blue;
    pixels.data[place + 3] = 255;
  }));
  pen.putImageData(pixels, 0, 0);
  return picture;
}

function paintMap(canvas, { geometry, picture, order, row, column }, players) {
  const { gutter, cell, side, density, named } = geometry;
  canvas.width = Math.ceil((side + gutter.left) * density);
  canvas.height = Math.ceil((side + gutter.top) * density);
  canvas.style.width = `${side + gutter.left}px`;
  canvas.style.height = `${side + gutter.top}px`;
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  pen.fillStyle = stripes(pen);
  pen.fillRect(gutter.left, gutter.top, side, side);
  pen.imageSmoothingEnabled = cell * density < 1;
  pen.drawImage(picture, gutter.left, gutter.top, side, side);
  pen.font = "11px system-ui, sans-serif";
  if (named) order.forEach((player, k) => {
    const middle = (k + 0.5) * cell;
    pen.fillStyle = colour(k === row || k === column ? "ink" : "soft");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText(players[player].name, gutter.left - 5, gutter.top + middle);
    pen.save();
    pen.translate(gutter.left + middle, gutter.top - 5);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "left";
    pen.fillText(players[player].name, 0, 0);
    pen.restore();
  });
  if (row < 0) return;
  pen.strokeStyle = colour("ink");
  pen.globalAlpha = 0.35;
  pen.strokeRect(gutter.left, gutter.top + row * cell, side, cell);
  pen.strokeRect(gutter.left + column * cell, gutter.top, cell, side);
  pen.globalAlpha = 1;
  pen.lineWidth = 2;
  pen.strokeRect(gutter.left + column * cell, gutter.top + row * cell, Math.max(cell, 3), Math.max(cell, 3));
}

function stripes(pen) {
  const tile = el("canvas", { width: 8, height: 8 }), brush = tile.getContext("2d");
  brush.fillStyle = colour("unknown");
  brush.fillRect(0, 0, 8, 8);
  brush.strokeStyle = colour("unknown-stripe");
  brush.beginPath();
  for (const shift of [-8, 0, 8]) { brush.moveTo(shift, 8); brush.lineTo(shift + 8, 0); }
  brush.stroke();
  return pen.createPattern(tile, "repeat");
}

function cellWords(player, other, cell, hasWinners) {
  const pair = `${player.name} against ${other.name}: `;
  if (player === other) return `${player.name} against itself: not counted`;
  if (!cell) return `${pair}never met`;
  if (!hasWinners) return `${pair}mean return ${precise(cell.value)} over ${whole(cell.matches)} matches`;
  const [low, high] = wilson(cell.value, cell.matches);
  return `${pair}${whole(cell.wins)} won, ${whole(cell.draws)} drawn, ${whole(cell.losses)} lost of ${whole(cell.matches)}; ` +
    `score ${cell.value.toFixed(3)}, 95% ${low.toFixed(3)} to ${high.toFixed(3)}`;
}
