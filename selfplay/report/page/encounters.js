// Whom each learning player met, and how often: over the whole run and lately.
const MOST_BARS = 60;

function encountersSection(report) {
  const note = `Share of a learner's matches with each other player, in the order in which they joined; lately: after iteration ${whole(report.recentFrom)}. Matches with itself are not counted.`;
  const met = report.encounters.filter((e) => e.matches.some((n) => n > 0));
  if (!met.length) return section("encounters", "Opponents", "No learner has met anybody but itself.");
  const host = el("div");
  const show = (chosen) => host.replaceChildren(encounterChart(report.players, met.find((e) => e.player === chosen)));
  const select = el("select", { onchange: () => show(select.value) }, ...met.map((e) => el("option", { value: e.player }, e.player)));
  show(met[0].player);
  return section("encounters", "Opponents", note,
    met.length > 1 ? el("div", { class: "controls" }, el("label", {}, "Learner", select)) : null, host);
}

function encounterChart(players, { player, matches, recent }) {
  const others = players.map((_, k) => k).filter((k) => players[k].kind !== "learning" || matches[k] > 0);
  const all = total(matches), late = total(recent);
  const share = (counts, sum) => others.map((k) => (sum ? counts[k] / sum : 0));
  const x = others.map((_, k) => k), bars = others.length <= MOST_BARS;
  return lineChart({
    label: `How often ${player} met each other player`, height: 280, legend: true, domain: [0],
    series: [
      { name: "whole run", colour: seriesColour(0), x, y: share(matches, all), bars },
      { name: "lately", colour: seriesColour(1), x, y: share(recent, late), bars },
    ],
    tickX: (k) => players[others[k]]?.name ?? "", tickY: percent, formatX: String, formatY: percent,
    describe: (k) => {
      const other = others[k];
      return `${players[other].name}: ${whole(matches[other])} of ${whole(all)} matches (${percent(all ? matches[other] / all : 0)}), ` +
        `lately ${whole(recent[other])} of ${whole(late)} (${percent(late ? recent[other] / late : 0)})`;
    },
  });
}

const total = (numbers) => numbers.reduce((a, b) => a + b, 0);
