// The charts. Each is drawn when it comes near the screen, and again when the colours of the page change.

const charts = [];
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) draw(charts.find((each) => each.node === target));
}, { rootMargin: "400px" });

function addChart(into, { height, summary, caption, option, legend, ready }) {
  const node = make("div", "chart"), around = make("figure", "", null, node);
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", summary);
  const entry = { node, option, height, ready, legend, chart: null };
  sizeOf(entry);
  if (legend) around.append(make("div"));
  around.append(make("figcaption", "", caption));
  into.append(around);
  charts.push(entry);
  near.observe(node);
  return entry;
}

function sizeOf(entry) {
  entry.node.style.height = `${entry.height(entry.node.clientWidth || document.body.clientWidth)}px`;
}

function draw(entry) {
  near.unobserve(entry.node);
  if (entry.legend) entry.node.nextElementSibling.replaceChildren(entry.legend());
  const c = colours(), first = !entry.chart;
  entry.chart = entry.chart || echarts.init(entry.node, null, { renderer: "canvas" });
  const common = { animation: false, backgroundColor: "transparent", textStyle: { fontFamily: c.sans, color: c.text } };
  entry.chart.setOption({ ...common, ...entry.option(c, entry.node.clientWidth) }, { notMerge: true });
  if (first && entry.ready) entry.ready(entry.chart);
}

function drawAgain() {
  for (const entry of charts) {
    sizeOf(entry);
    if (!entry.chart) continue;
    entry.chart.resize();
    draw(entry);
  }
}

function tooltip(lines) {
  return {
    trigger: "item", confine: true, className: "tip", transitionDuration: 0,
    formatter: (params) => {
      const said = lines(params);
      if (!said) return "";
      return make("div", "", null, ...said.map((line, i) => make("p", i ? "quiet" : "", clipped(String(line), 300))));
    },
  };
}

function valueAxis(c, name, more = {}) {
  return {
    type: "value", name, nameLocation: "middle", nameGap: 30, nameTextStyle: { color: c.quiet, fontSize: 12 },
    axisLine: { lineStyle: { color: c.line } }, axisTick: { show: false }, splitLine: { lineStyle: { color: c.line } },
    axisLabel: { color: c.quiet, fontSize: 11, hideOverlap: true, formatter: short }, ...more,
  };
}

// Up and down the usual range of the metric, whose ends are no round numbers.
function metricAxis(c, range) {
  const plain = valueAxis(c, "", { min: range.low, max: range.high });
  return { ...plain, axisLabel: { ...plain.axisLabel, showMinLabel: false, showMaxLabel: false },
    splitLine: { ...plain.splitLine, showMinLine: false, showMaxLine: false } };
}

// An axis of positions, as axes.py makes them, with its own ticks.
function placedAxis(c, axis, more = {}) {
  const at = axis.ticks.map((tick) => tick[0]), margin = axis.kind === "linear" || axis.kind === "log" ? 0.03 : 0.5;
  const room = axis.kind === "linear" || axis.kind === "log" ? margin * (axis.high - axis.least || 1) : margin;
  const text = new Map(axis.ticks);
  const plain = valueAxis(c, clipped(axis.name, 40));
  return {
    ...plain, min: axis.least - room, max: axis.high + room, splitLine: { show: false },
    axisLabel: { ...plain.axisLabel, customValues: at, formatter: (value) => clipped(nearest(text, value), 14) },
    axisTick: { show: true, customValues: at, lineStyle: { color: c.line } }, ...more,
  };
}

function nearest(ticks, value) {
  for (const [at, text] of ticks) if (Math.abs(at - value) < 1e-9 + 1e-6 * Math.abs(at)) return text;
  return "";
}

const plotGrid = { left: 62, right: 18, top: 16, bottom: 56 };

function legendOf(states) {
  return make("ul", "legend", null, ...states.map((name) => make("li", "", null, stateMark(name))));
}

function scaleLegend() {
  const bar = make("span", "scale");
  bar.style.background = `linear-gradient(to right, ${scaleColours().join(", ")})`;
  return make("ul", "legend", null, make("li", "", null, "worse", bar, `better ${DATA.metric}`));
}

function showProgress() {
  const { best, num_epochs: total, now_s: end } = DATA.progress;
  if (!best.length) return hide("progress");
  const first = best[0], last = best[best.length - 1];
  const entry = addChart(byId("progress"), {
    height: () => 300,
    summary: `The best ${DATA.metric} so far, as a staircase: ${figure4(first[2])} at first, ${figure4(last[2])} in the end.`,
    caption: `From ${figure4(first[2])} to ${figure4(last[2])} in ${best.length} ${best.length === 1 ? "step" : "steps"}; the last came after ` +
      `${last[0].toLocaleString("en")} of ${total.toLocaleString("en")} epochs, ${clock(last[1])} of ${clock(end)}.`,
    option: (c) => {
      const column = state.over === "epochs" ? 0 : 1, until = state.over === "epochs" ? total : end;
      const points = best.map((step) => [step[column], step[2], step[3]]);
      const range = usualRange(best.map((step) => step[2]), DATA.mode);
      return {
        grid: plotGrid,
        xAxis: valueAxis(c, column ? "time since the search began" : "epochs trained, over all trials",
          { min: 0, max: Math.max(until, 1), splitLine: { show: false },
            axisLabel: { color: c.quiet, fontSize: 11, hideOverlap: true, formatter: column ? clock : short } }),
        yAxis: metricAxis(c, range),
        series: [{
          type: "line", step: "end", data: [...points, [until, last[2], last[3]]], symbol: "circle",
          symbolSize: (value, p) => (p.dataIndex < points.length ? 8 : 0), itemStyle: { color: c.strong },
          lineStyle: { color: c.strong, width: 2.5 }, areaStyle: { color: c.strong, opacity: 0.07, origin: "start" },
        }],
        tooltip: tooltip((p) => [`${DATA.metric} ${figure4(p.value[1])}`, `trial ${p.value[2]}, ` +
          (column ? `after ${clock(p.value[0])}` : `after ${p.value[0]} epochs in all`)]),
      };
    },
  });
  for (const button of byId("progress").querySelectorAll("[data-over]")) {
    button.addEventListener("click", () => {
      state.over = button.dataset.over;
      for (const each of byId("progress").querySelectorAll("[data-over]")) {
        each.setAttribute("aria-pressed", String(each === button));
      }
      draw(entry);
    });
  }
}

function showParallel() {
  const { axes, trials } = DATA.parallel;
  if (!axes.length || trials.length < 2) return hide("configs");
  const upright = (width) => width < 620, good = goodness();
  const values = new Map(DATA.scored), names = axes.map((axis) => clipped(axis.name, 40));
  const entry = addChart(byId("configs"), {
    height: (width) => (upright(width) ? 70 * axes.length + 50 : 420),
    summary: `Parallel coordinates of ${trials.length} trials over ${names.join(", ")}.`,
    caption: `${trials.length} trials, coloured by ${DATA.metric}. "none": a key that the config does not have, or no result.`,
    legend: scaleLegend,
    option: (c, width) => {
      const order = trials.map((trial, i) => i).sort((a, b) => worth(a) - worth(b));
      return {
        parallel: upright(width)
          ? { layout: "vertical", left: 34, right: 34, top: 34, bottom: 30, axisExpandable: false }
          : { left: 48, right: 76, top: 56, bottom: 24 },
        parallelAxis: axes.map((axis, dim) => {
          const plain = placedAxis(c, axis);
          return {
            ...plain, dim, z: 10, name: clipped(axis.name, upright(width) ? 40 : 18), nameLocation: upright(width) ? "start" : "end",
            nameGap: 18, nameTextStyle: { color: c.text, fontSize: 12, fontWeight: 500, ...(upright(width)
              ? { align: "left", verticalAlign: "bottom", padding: [0, 0, 14, -12] } : {}) },
            axisLine: { lineStyle: { color: c.quiet, width: 1 } },
            axisLabel: { ...plain.axisLabel, color: c.text, textBorderColor: c.page, textBorderWidth: 4 },
            areaSelectStyle: { width: 22, borderWidth: 1, borderColor: c.strong, color: c.strong, opacity: 0.2 },
          };
        }),
        series: [{
          type: "parallel", z: 1, smooth: 0.12, inactiveOpacity: 0.04, activeOpacity: 0.9, progressive: 500,
          lineStyle: { width: trials.length > 200 ? 1 : 1.6, opacity: trials.length > 200 ? 0.45 : 0.8 },
          data: order.map((i) => ({
            name: String(trials[i]), value: axes.map((axis) => axis.positions[i]),
            lineStyle: { color: values.has(trials[i]) ? scaleColour(good(values.get(trials[i]))) : c.states.diverged },
          })),
        }],
        tooltip: tooltip((p) => tipOfTrial(Number(p.name))),
      };
    },
    ready: (chart) => chart.on("axisareaselected", () => {
      const series = chart.getModel().getSeriesByIndex(0);
      const active = series.getRawIndicesByActiveState("active").map((i) => Number(series.getData().getName(i)));
      const ranged = chart.getModel().queryComponents({ mainType: "parallelAxis" }).some((each) => each.activeIntervals.length);
      pick(ranged ? new Set(active) : null);
    }),
  });
  const worth = (i) => (values.has(trials[i]) ? good(values.get(trials[i])) : -9);
  state.unpick = () => draw(entry);
}

function tipOfTrial(number) {
  const row = DATA.trials.rows.find((each) => each[0] === number);
  if (!row) return [`trial ${number}`];
  const said = row[9].map((value, i) => (value === null ? null : `${DATA.trials.keys[i]} ${value}`)).filter(Boolean);
  return [`trial ${number}: ${DATA.metric} ${figure4(row[2])}`, `${row[1]} after ${row[4]} ${row[4] === 1 ? "epoch" : "epochs"}`, said.join(" · ")];
}

function pick(trials) {
  state.picked = trials;
  if (state.curves && state.curves.chart) draw(state.curves);
  showRows(0);
}

function showCurves() {
  if (!DATA.curves.length) return hide("curves");
  const every = DATA.curves.flatMap((curve) => curve.points.map((point) => point[1]));
  const range = usualRange(every, DATA.mode);
  const there = [...new Set(DATA.curves.map((curve) => curve.state))];
  const outside = range.outside ? ` ${range.outside} ${range.outside === 1 ? "value lies" : "values lie"} far outside of the others, and of the chart.` : "";
  const left = DATA.trials.rows.length > DATA.curves.length + 50 ? ", the best and others evenly chosen" : "";
  state.curves = addChart(byId("curves"), {
    height: (width) => (width < 620 ? 320 : 420),
    summary: `${DATA.metric} of ${DATA.curves.length} trials over their epochs; each ends in a dot where it was left.`,
    caption: `${DATA.curves.length} trials${left}; trials that were stopped early are faded. A dot is where one ended.${outside}`,
    legend: () => legendOf(there),
    option: (c) => {
      const shown = DATA.curves.filter((curve) => !state.picked || state.picked.has(curve.trial));
      const many = shown.length > 150, faded = (curve) => curve.state === "stopped";
      const opacity = (curve) => (curve.trial === DATA.trials.best ? 1 : faded(curve) ? 0.28 : many ? 0.5 : 0.85);
      const width = (curve) => (curve.trial === DATA.trials.best ? 3.5 : many ? 1 : 1.6);
      const known = shown.map((curve) => ({ ...curve, points: curve.points.filter((point) => point[1] !== null) }));
      known.sort((a, b) => opacity(a) - opacity(b));
      const ends = known.filter((curve) => curve.points.length);
      return {
        grid: plotGrid,
        xAxis: valueAxis(c, "epoch", { min: 1, max: Math.max(2, ...every.length ? DATA.curves.map((x) => x.points[x.points.length - 1][0]) : [2]),
          minInterval: 1, splitLine: { show: false } }),
        yAxis: metricAxis(c, range),
        series: [
          { type: "lines", coordinateSystem: "cartesian2d", polyline: true, clip: true,
            data: known.filter((curve) => curve.points.length > 1).map((curve) => ({ name: String(curve.trial),
              coords: curve.points, lineStyle: { color: c.states[curve.state], opacity: opacity(curve), width: width(curve) } })) },
          { type: "scatter", clip: true, symbolSize: many ? 4 : 6, data: ends.map((curve) => ({ name: String(curve.trial),
              value: curve.points[curve.points.length - 1], itemStyle: { color: c.states[curve.state], opacity: Math.max(0.35, opacity(curve)) } })) },
        ],
        tooltip: tooltip((p) => tipOfTrial(Number(p.name))),
      };
    },
  });
}

function showEffects() {
  if (!DATA.slices.length) return;
  const side = make("div", "pair"), good = goodness(), values = DATA.scored.map((pair) => pair[1]);
  const range = usualRange(values, DATA.mode);
  byId("matters").append(make("h3", "", "One at a time"), side);
  for (const axis of DATA.slices) {
    addChart(side, {
      height: () => 280,
      summary: `${DATA.metric} of each trial over ${clipped(axis.name, 60)}.`,
      caption: `${DATA.metric} over ${clipped(axis.name, 60)}, a dot per trial; later trials are stronger.`,
      option: (c) => ({
        grid: plotGrid, xAxis: placedAxis(c, axis), yAxis: metricAxis(c, range),
        series: [{ type: "scatter", symbolSize: values.length > 300 ? 5 : 8, data: values.map((value, i) => ({
          name: String(DATA.scored[i][0]), value: [axis.positions[i], value],
          itemStyle: { color: c.strong, opacity: 0.25 + (0.6 * (i + 1)) / values.length } })) }],
        tooltip: tooltip((p) => tipOfTrial(Number(p.name))),
      }),
    });
  }
  if (DATA.surface && DATA.surface.cells.length) showSurface(good, values);
}

function showSurface(good, values) {
  const [across, up] = DATA.slices, { cells, num_cells: num } = DATA.surface;
  const middle = (axis, i) => (axis.kind === "linear" || axis.kind === "log"
    ? { at: axis.low + ((i + 0.5) / num) * (axis.high - axis.low), size: (axis.high - axis.low) / num }
    : { at: i, size: 0.94 });
  byId("matters").append(make("h3", "", "Two together"));
  addChart(byId("matters"), {
    height: (width) => (width < 620 ? 340 : 440),
    summary: `${DATA.metric} over ${clipped(across.name, 60)} and ${clipped(up.name, 60)}, in colours; each trial is a dot.`,
    caption: `Colours are the mean ${DATA.metric} of the trials nearby, the nearer the more; where nothing is drawn, nothing ` +
      "was tried. A dot is a trial; the ring is the best.",
    legend: scaleLegend,
    option: (c) => ({
      grid: { ...plotGrid, left: 76 }, xAxis: placedAxis(c, across), yAxis: placedAxis(c, up, { nameGap: 58 }),
      series: [
        { type: "custom", silent: true, clip: true, data: cells, progressive: 0, renderItem: (params, api) => {
          const [x, y] = [middle(across, api.value(0)), middle(up, api.value(1))];
          const from = api.coord([x.at - x.size / 2, y.at + y.size / 2]), to = api.coord([x.at + x.size / 2, y.at - y.size / 2]);
          const shape = { x: from[0], y: from[1], width: to[0] - from[0] + 0.6, height: to[1] - from[1] + 0.6 };
          return { type: "rect", shape, style: { fill: scaleColour(good(api.value(2))) } };
        } },
        { type: "scatter", symbolSize: (value, p) => (DATA.scored[p.dataIndex][0] === DATA.trials.best ? 15 : values.length > 300 ? 5 : 8),
          data: values.map((value, i) => { const best = DATA.scored[i][0] === DATA.trials.best; return {
            name: String(DATA.scored[i][0]), value: [across.positions[i], up.positions[i]],
            itemStyle: { color: best ? "transparent" : scaleColour(good(value)), borderColor: best ? c.text : c.card,
              borderWidth: best ? 3 : 1.2 } }; }) },
      ],
      tooltip: tooltip((p) => (p.seriesType === "scatter" ? tipOfTrial(Number(p.name)) : null)),
    }),
  });
}

function showTimeline() {
  const { lanes, stints, num_left_out: left } = DATA.timeline;
  if (!stints.length) return hide("timeline");
  const states = new Map(DATA.trials.rows.map((row) => [row[0], row[1]]));
  const there = [...new Set(stints.map((stint) => states.get(stint[3])).filter(Boolean))];
  const from = Math.min(...stints.map((stint) => stint[1])), lasted = DATA.progress.now_s - from;
  const busy = stints.reduce((sum, stint) => sum + stint[2] - stint[1], 0) / (lanes.length * lasted || 1);
  const more = left ? ` The shortest ${left.toLocaleString("en")} are left out.` : "";
  addChart(byId("timeline"), {
    height: () => Math.max(140, Math.min(1400, 26 * lanes.length + 80)),
    summary: `Which trial ran at which of ${lanes.length} places, and when.`,
    caption: `${stints.length.toLocaleString("en")} stints at ${lanes.length} places, busy ${Math.round(100 * Math.min(1, busy))} % of the time since ${clock(from)}, when the first began. ` +
      "A row is a place on a machine: trials that ran there one after another; the colour is what became of them." + more,
    legend: () => legendOf(there),
    option: (c, width) => ({
      grid: { left: width < 620 ? 70 : 130, right: 24, top: 10, bottom: 56 },
      xAxis: valueAxis(c, "time since the search began", { min: from, max: from + Math.max(lasted, 1),
        axisLabel: { color: c.quiet, fontSize: 11, hideOverlap: true, formatter: clock } }),
      yAxis: { type: "category", data: lanes, inverse: true, axisLine: { show: false }, axisTick: { show: false },
        axisLabel: { color: c.quiet, fontSize: 11, width: width < 620 ? 60 : 118, overflow: "truncate" } },
      series: [{ type: "custom", clip: true, data: stints.map((s) => [s[1], s[2], s[0], s[3], s[4]]),
        encode: { x: [0, 1], y: 2 }, progressive: 0, renderItem: (params, api) => {
          const from = api.coord([api.value(0), api.value(2)]), to = api.coord([api.value(1), api.value(2)]);
          const tall = Math.min(18, api.size([0, 1])[1] * 0.72), trial = api.value(3), wide = Math.max(1.5, to[0] - from[0] - 1);
          const colour = c.states[states.get(trial)] || c.quiet;
          return { type: "rect", shape: { x: from[0], y: from[1] - tall / 2, width: wide, height: tall, r: wide > 6 ? 2 : 0 },
            style: { fill: colour, stroke: trial === DATA.trials.best ? c.text : "none", lineWidth: 2 },
            ...(wide > 26 ? { textContent: { style: { text: String(trial), fill: c.dark ? "#14171b" : "#ffffff", fontSize: 10 } },
              textConfig: { position: "inside" } } : {}) };
        } }],
      tooltip: tooltip((p) => [`trial ${p.value[3]}: ${states.get(p.value[3]) || ""}`,
        `${clock(p.value[0])} to ${clock(p.value[1])} at ${lanes[p.value[2]]}`, `this stint: ${p.value[4]}`]),
    }),
  });
}
