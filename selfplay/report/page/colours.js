// Colours come from the style sheet, so that canvases follow light and dark too.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const SERIES_COLOURS = 8;
const seriesColour = (k) => `var(--c${k % SERIES_COLOURS})`;

/** [r, g, b] of the ends and the middle of the payoffs' scale. */
function payoffColours() {
  const parse = (name) => colour(name).split(" ").map(Number);
  return { loss: parse("loss"), even: parse("even"), win: parse("win") };
}

/** 0 -> loss, 1/2 -> even, 1 -> win. */
function blended({ loss, even, win }, value) {
  const side = 2 * value - 1, end = side < 0 ? loss : win, weight = Math.abs(side);
  return even.map((part, k) => Math.round(part + weight * (end[k] - part)));
}
