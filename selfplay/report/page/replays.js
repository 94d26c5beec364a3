// Matches on record, step by step: the board, and what the policies thought.
const STEP_MS = 900;

function replaySection(report) {
  if (!report.replays.length)
    return section("replays", "Replays", "No match is on record: `play A B --save-replay RUN/replays/NAME.json` records one.");
  const host = el("div");
  const show = (k) => {
    player.stop();
    player = replayPlayer(report.replays[k]);
    host.replaceChildren(player.element);
  };
  const select = el("select", { onchange: () => show(select.selectedIndex) }, ...report.replays.map((r) => el("option", {}, r.name)));
  let player = { stop: () => {} };
  show(0);
  return section("replays", "Replays", "Arrow keys step, space plays.",
    el("div", { class: "controls" }, el("label", {}, "Match", select)), host);
}

function replayPlayer(replay) {
  const last = Math.max(replay.steps.length, replay.boards.length - 1);
  const state = { step: 0, timer: null };
  const board = el("div", { class: "board" }), decisions = el("div", { "aria-live": "polite" }), where = el("span", { class: "soft" });
  const slider = el("input", { type: "range", min: 0, max: last, value: 0, "aria-label": "Step", oninput: () => go(+slider.value) });
  const button = (text, label, action) => el("button", { type: "button", "aria-label": label, onclick: action }, text);
  const play = button("Play", "Play or pause", () => (state.timer ? stop() : start()));
  const back = button("◀", "Step back", () => go(state.step - 1)), forward = button("▶", "Step forward", () => go(state.step + 1));

  const stop = () => {
    clearInterval(state.timer);
    state.timer = null;
    play.textContent = "Play";
  };
  const start = () => {
    if (state.step === last) go(0);
    play.textContent = "Pause";
    state.timer = setInterval(() => (state.step === last ? stop() : show(state.step + 1)), STEP_MS);
  };
  const go = (step) => { stop(); show(step); };
  const show = (step) => {
    state.step = Math.max(0, Math.min(last, step));
    slider.value = state.step;
    back.disabled = state.step === 0;
    forward.disabled = state.step === last;
    where.textContent = state.step === last ? `end, after ${last} steps` : `step ${state.step + 1} of ${last}`;
    const text = replay.boards[state.step];
    board.replaceChildren(...(text == null ? [el("span", { class: "soft" }, "This game draws no board.")] : boardElements(text)));
    const now = replay.steps[state.step];
    decisions.replaceChildren(...(now ? now.map((d) => decisionElement(d, replay.lineup)) : [endElement(replay)]));
  };
  const keys = (event) => {
    if (event.target === slider) return;
    const action = {
      ArrowLeft: () => go(state.step - 1), ArrowRight: () => go(state.step + 1),
      Home: () => go(0), End: () => go(last), " ": () => (state.timer ? stop() : start()),
    }[event.key];
    if (!action || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    action();
  };
  show(0);
  const seats = replay.lineup.map((name, seat) => `seat ${seat}: ${name}`).join(" · ");
  return {
    stop,
    element: el("div", { tabindex: "0", role: "group", "aria-label": "Replay. Arrow keys step, space plays.", onkeydown: keys, "data-replay": true },
      el("p", { class: "soft" }, seats),
      el("div", { class: "controls" }, back, play, forward, slider, where),
      el("div", { class: "replay" }, board, decisions)),
  };
}

/** A text board: lines of single letters with spaces between, as many on each, are drawn as a grid. */
function boardElements(text) {
  const lines = text.split("\n");
  const isRow = (line) => /^\S( \S)+$/.test(line);
  const first = lines.findIndex(isRow);
  let end = first;
  while (end >= 0 && end < lines.length && isRow(lines[end]) && lines[end].length === lines[first].length) end++;
  if (first < 0 || end - first < 3) return [el("pre", {}, text)];
  const width = (lines[first].length + 1) / 2;
  const isLabels = (line) => line === Array.from({ length: width }, (_, k) => k + 1).join(" ");
  const cells = lines.slice(first, end).flatMap((line) => line.split(" ").map((letter) => {
    const kind = isLabels(line) ? "label" : { X: "x", x: "x", O: "o", o: "o" }[letter] ?? "";
    return el("span", { class: `cell ${kind}` }, letter === "." ? "" : letter);
  }));
  const before = lines.slice(0, first).join("\n"), after = lines.slice(end).join("\n");
  return [
    before ? el("pre", {}, before) : null,
    el("div", { class: "cells", role: "img", "aria-label": text, style: `grid-template-columns:repeat(${width},auto)` }, ...cells),
    after ? el("pre", {}, after) : null,
  ].filter(Boolean);
}

function decisionElement(decision, lineup) {
  const action = decision.name ?? JSON.stringify(decision.action);
  const thought = [
    decision.value == null ? null : `value ${precise(decision.value)}`,
    decision.entropy == null ? null : `entropy ${precise(decision.entropy)} nats`,
  ].filter(Boolean).join(", ");
  const bars = decision.top.flatMap(([number, name, probability]) => [
    el("span", {}, name),
    el("span", { class: "bar" }, el("i", { class: number === decision.action ? "taken" : "", style: `width:${100 * probability}%` })),
    el("span", {}, percent(probability)),
  ]);
  return el("div", { class: "decision" },
    el("div", {}, el("strong", {}, `Seat ${decision.seat}, ${lineup[decision.seat]}: ${action}`)),
    thought ? el("div", { class: "soft" }, thought) : null,
    bars.length ? el("div", { class: "bars" }, ...bars) : null);
}

const endElement = (replay) => el("div", { class: "decision" }, el("strong", {}, "The match has ended."),
  ...replay.returns.map((value, seat) => el("div", {}, `Seat ${seat}, ${replay.lineup[seat]}: return ${precise(value)}`)));
