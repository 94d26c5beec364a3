// The page from the data. `data-drawn` on the root element tells when everything stands, in milliseconds.
const report = JSON.parse(document.getElementById("data").textContent);

function headerParts({ title, facts }) {
  const boxes = facts.map(({ name, value, note }) => el("div", {}, el("dt", {}, name), el("dd", {}, value, note ? el("small", {}, note) : null)));
  return [el("h1", {}, title), el("dl", { class: "facts" }, ...boxes)];
}

function knowSection({ findings, checked }) {
  const box = section("know", findings.length ? "What to know" : "Nothing suspicious", null,
    findings.length ? el("ul", {}, ...findings.map(({ title, text }) => el("li", {}, el("strong", {}, `${title}. `), text))) : null,
    el("p", { class: "soft" }, `Checked: ${checked.join("; ")}.`));
  box.classList.add(findings.length ? "warned" : "fine");
  return box;
}

const configSection = ({ config }) => section("config", "Configuration", null,
  el("details", { open: true }, el("summary", {}, "config.toml"), el("pre", { tabindex: "0" }, config)));

const versionsSection = ({ versions }) => section("versions", "Versions", "With which the run last went on.",
  el("table", {}, ...versions.map(({ name, value }) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)))));

document.getElementById("top").append(...headerParts(report));
document.getElementById("main").append(
  knowSection(report), ratingSection(report),
  el("div", { class: "two" }, payoffSection(report), encountersSection(report)),
  panelsSection(report), familySection(report), replaySection(report),
  el("div", { class: "two" }, configSection(report), versionsSection(report)));
requestAnimationFrame(() => requestAnimationFrame(() => {
  document.documentElement.dataset.drawn = Math.round(performance.now());
}));
