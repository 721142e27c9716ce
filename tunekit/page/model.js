// What the best model does: on test if that was opened, on val if the report looked at it.

function showModel() {
  const { tested, looked } = DATA, into = byId("figures");
  if (tested) showTested(into, tested);
  else into.append(make("p", "", "The test split has not been opened: results.test(), or tunekit test, opens it once."));
  if (looked.note) into.append(make("p", "", `What it does on val is not shown here: ${looked.note}`));
  else if (!looked.num_images) {
    into.append(make("p", "", "What it does on val is shown by results.report(), or tunekit report, once it is asked for."));
  }
  if (looked.dots) showPredicted(into, looked);
  const shown = tested && tested.confusion ? [tested, "test"] : looked.confusion ? [looked, "val"] : null;
  if (shown) showClasses(into, ...shown);
  if (looked.images && looked.images.length) showImages(into, looked);
}

function showTested(into, tested) {
  const looks = tested.times_opened === 1 ? "once" : `${tested.times_opened} times: each look makes it less of a test`;
  into.append(make("h3", "", "On the test split"), make("p", "", `Of trial ${tested.trial}, epoch ${tested.epoch}, on ` +
    `${tested.num_images.toLocaleString("en")} images that no decision has seen. Opened ${looks}.`));
  const columns = Object.keys(tested).filter((key) => key.startsWith("test_"));
  const cells = (name, figures) => {
    const row = make("tr", "", null, make("th", "", name));
    row.firstChild.scope = "row";
    for (const key of columns) {
      const interval = key === "test_accuracy" && figures.interval;
      const range = interval ? ` (${interval[0].toFixed(4)} to ${interval[1].toFixed(4)})` : "";
      row.append(make("td", "", figures[key] === null ? "undefined" : figures[key].toFixed(4) + range));
    }
    return row;
  };
  const head = make("tr", "", null, make("td"));
  for (const key of columns) head.append(headCell(key === "test_accuracy" ? `${key} (95 % interval)` : key));
  const body = make("tbody", "", null, cells(`best, trial ${tested.trial}`, tested));
  if (tested.default) body.append(cells(`default config, trial ${tested.default.trial}`, tested.default));
  into.append(scrollable("Figures on the test split", make("table", "", null, make("thead", "", null, head), body)));
}

function headCell(text, scope = "col") {
  const cell = make("th", "", text);
  cell.scope = scope;
  return cell;
}

function scrollable(label, node) {
  const around = make("div", "scroll", null, node);
  around.setAttribute("role", "region");
  around.setAttribute("aria-label", label);
  around.tabIndex = 0;
  return around;
}

function showClasses(into, figures, split) {
  const names = Object.keys(figures.per_class), most = 30;
  const rows = names.map((name) => [name, figures.per_class[name]]).filter((row) => row[1].accuracy !== null);
  rows.sort((a, b) => a[1].accuracy - b[1].accuracy);
  into.append(make("h3", "", `Accuracy of each class, on ${split}`));
  into.append(make("p", "", `The worst first, with 95 % intervals${rows.length > most ? `; ${most} of ${rows.length}` : ""}.`));
  const list = make("div", "bars");
  for (const [name, { accuracy, interval, num_images: num }] of rows.slice(0, most)) {
    const range = `${accuracy.toFixed(3)} (${interval[0].toFixed(3)}–${interval[1].toFixed(3)}), ${num}`;
    list.append(bar(name, range, interval[0], interval[1], accuracy));
  }
  into.append(list, make("h3", "", `Which classes are taken for which, on ${split}`));
  if (names.length <= 20) into.append(confusionTable(names, figures.confusion));
  into.append(make("p", "", confusedInWords(names, figures.confusion)));
}

function confusedInWords(names, confusion) {
  const wrong = [];
  confusion.forEach((row, i) => row.forEach((count, j) => { if (i !== j && count) wrong.push([count, i, j]); }));
  wrong.sort((a, b) => b[0] - a[0]);
  if (!wrong.length) return "No image was taken for another class.";
  const said = wrong.slice(0, 5).map(([count, i, j]) => `${clipped(names[i], 40)} for ${clipped(names[j], 40)} (${count})`);
  return `Most often taken for another: ${said.join(", ")}.`;
}

function confusionTable(names, confusion) {
  const table = make("table", "confusion"), head = make("tr", "", null, make("td", "", "true \\ taken for"));
  for (const name of names) head.append(headCell(clipped(name, 24)));
  const body = make("tbody");
  confusion.forEach((counts, i) => {
    const row = make("tr", "", null, headCell(clipped(names[i], 24), "row")), total = counts.reduce((a, b) => a + b, 0);
    counts.forEach((count, j) => {
      const cell = make("td", "", count ? String(count) : "·"), share = total ? count / total : 0;
      if (count) {
        const blue = i === j, strength = blue ? 0.08 + 0.3 * share : 0.15 + 0.45 * Math.min(1, 3 * share);
        cell.style.backgroundColor = blue ? `rgba(0, 114, 178, ${strength})` : `rgba(230, 159, 0, ${strength})`;
      }
      row.append(cell);
    });
    body.append(row);
  });
  table.append(make("thead", "", null, head), body);
  const around = scrollable("Confusion matrix: rows are true classes, columns what the model says", table);
  around.classList.add("snug");
  return around;
}

function showImages(into, looked) {
  into.append(make("h3", "", "The val images that it is most wrong about"));
  const list = make("div", "images");
  for (const { src, text, name } of looked.images) {
    const image = make("img");
    if (src.startsWith("data:image/png;base64,")) image.src = src;
    image.alt = `An image that ${text}`;
    list.append(make("figure", "", null, image, make("figcaption", "", `${text} · ${clipped(name, 60)}`)));
  }
  into.append(list);
}

function showPredicted(into, looked) {
  const [low, high] = [looked.edges[0], looked.edges[looked.edges.length - 1]];
  into.append(make("h3", "", "Predicted against true, on val"));
  addChart(into, {
    height: () => 440,
    summary: "A dot per val image: its true value across, the predicted one up; histograms of both at the margins.",
    caption: `${looked.num_images.toLocaleString("en")} val images; on the dotted line a prediction is exact.`,
    option: (c) => {
      const bars = (name, x) => ({ type: "bar", barCategoryGap: "8%", itemStyle: { color: c.strong, opacity: 0.55 },
        xAxisIndex: x, yAxisIndex: x, data: looked.counts[name] });
      const bare = { show: false }, bins = { type: "category", data: looked.counts.true.map((n, i) => i), ...bare };
      const exact = { min: low, max: high, axisLabel: { color: c.quiet, fontSize: 11, formatter: short, showMinLabel: false, showMaxLabel: false } };
      return {
        grid: [{ left: 60, right: 110, top: 80, bottom: 52 }, { left: 60, right: 110, top: 12, height: 58 },
          { width: 84, right: 12, top: 80, bottom: 52 }],
        xAxis: [valueAxis(c, "true", exact), { ...bins, gridIndex: 1 }, { type: "value", gridIndex: 2, ...bare }],
        yAxis: [valueAxis(c, "predicted", exact), { type: "value", gridIndex: 1, ...bare }, { ...bins, gridIndex: 2 }],
        series: [
          { type: "scatter", data: looked.dots, symbolSize: 6, itemStyle: { color: c.strong, opacity: 0.5 } },
          { type: "line", data: [[low, low], [high, high]], symbol: "none", silent: true,
            lineStyle: { color: c.quiet, type: "dotted", width: 1.5 } },
          bars("true", 1), bars("predicted", 2),
        ],
        tooltip: tooltip((p) => p.seriesType === "scatter" ? [`true ${short(p.value[0])}`, `predicted ${short(p.value[1])}`] : null),
      };
    },
  });
}
