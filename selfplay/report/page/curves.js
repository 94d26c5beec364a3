// Rating over the run, and the panels of training curves.
const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)}%`;

function ratingSection(report) {
  const learners = [...new Set(report.players.filter((p) => p.kind === "snapshot").map((p) => p.lineage))];
  const series = [];
  learners.forEach((name, k) => {
    const rated = report.ratings.filter(([player]) => report.players[player].lineage === name);
    const dots = { dots: true, alone: rated.some((r) => report.players[r[0]].is_reset) };
    if (rated.length) series.push({
      name: learners.length > 1 ? `${name}, rated as it joined` : "rated as it joined",
      colour: seriesColour(2 * k), ...dots,
      x: rated.map((r) => r[2]), y: rated.map((r) => r[3]), low: rated.map((r) => r[4]), high: rated.map((r) => r[5]),
    });
    const fitted = report.players.filter((p) => p.lineage === name && p.kind === "snapshot" && p.strength);
    if (fitted.length) series.push({
      name: learners.length > 1 ? `${name}, from all matches` : "from all matches (Bradley–Terry)",
      colour: seriesColour(2 * k + 1), ...dots, dashed: true, x: fitted.map((p) => p.joined),
      y: fitted.map((p) => p.strength[0]), low: fitted.map((p) => p.strength[1]), high: fitted.map((p) => p.strength[2]),
    });
  });
  if (!series.length) return section("rating", "Rating", "Nobody has been rated in this run.");
  const lines = report.players.filter((p) => p.kind === "bot" && p.rating).map((p) => ({ name: p.name, y: p.rating[0] }));
  return section("rating", "Rating", "Points on a scale where random is 0 and 8.3 points are 80% wins, with 95% intervals; dashed: anchors, which never move. Against decisions learned from.",
    lineChart({
      label: "Rating of past selves over the run", height: 300, series, lines, legend: true,
      formatX: (x) => `${brief(x)} decisions`, formatY: precise,
    }));
}

function panelsSection(report) {
  const boxes = report.panels.map((panel) => el("div", {},
    el("h3", {}, panel.title), el("div", { class: "soft" }, panel.note),
    lineChart({
      label: `${panel.title}: ${panel.note}`, height: 150,
      domain: panel.title === "Score" ? [0, 1] : [],
      series: panel.series.map((s, k) => ({ name: s.name, colour: seriesColour(k), x: report.steps, y: s.y })),
      formatX: (x) => `${brief(x)} decisions, iteration ${whole(report.iterations[report.steps.indexOf(x)])}`,
      formatY: panel.title === "Score" ? percent : precise,
    })));
  return section("training", "Training", "Means over neighbouring iterations; against decisions learned from.",
    el("div", { class: "panels" }, ...boxes));
}
