// Curves: data of report/parts/curves.py, drawn with Plotly.
(async () => {
  const data = JSON.parse(document.getElementById("curves-data").textContent);
  const choice = document.getElementById("x-axis");
  const holders = [...document.querySelectorAll("[data-chart]")];
  let Plotly;
  try {
    Plotly = await window.stopgradPlotly;
  } catch (error) {
    for (const holder of holders) holder.textContent = "This browser is too old to draw the curves.";
    return;
  }
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

  function traces(chart, axis) {
    const made = [], named = new Set(), before = data.before ?? "untrained";
    for (const s of chart.series) {
      const along = data.runs[s.run][axis];
      const x = s.at === null ? along : s.at.map((i) => along[i]);
      made.push({
        x, y: s.y, type: "scatter", name: escaped(s.name), legendgroup: escaped(s.group), connectgaps: false,
        showlegend: !named.has(s.group), mode: x.length < 40 ? "lines+markers" : "lines",
        marker: { size: 5, symbol: s.symbol }, line: { color: s.colour, width: s.width, dash: s.dash }, meta: s.group,
        hovertemplate: `%{y:.4~g}<extra>${escaped(s.label ?? s.name)}</extra>`,
      });
      named.add(s.group);
      if (s.level !== null && s.level !== undefined) {
        made.push({
          x: [x[0], x[x.length - 1]], y: [s.level, s.level], type: "scatter", mode: "lines", hoverinfo: "skip",
          name: escaped(chart.series.length > 1 ? `${s.name}, ${before}` : before), legendgroup: escaped(s.group),
          showlegend: true,
          line: { color: s.colour, width: 1.2, dash: "dash" },
        });
      }
    }
    return made;
  }

  function layout(chart, axis) {
    const font = { family: 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif', size: 12, color: style("--ink") };
    const paper = style("--paper"), grid = style("--line"), line = style("--faint");
    return {
      autosize: true, height: 250, margin: { l: 58, r: 14, t: 8, b: 42 }, font, paper_bgcolor: paper, plot_bgcolor: paper,
      hovermode: data.legend === false ? "closest" : "x", hoverlabel: { font: { size: 12 } }, dragmode: "zoom",
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
      showlegend: data.legend !== false && traces(chart, axis).filter((t) => t.showlegend).length > 1,
      xaxis: { title: { text: data.axes[axis], standoff: 6 }, gridcolor: grid, linecolor: line, ticks: "outside",
        tickcolor: line, zeroline: false, rangemode: "tozero" },
      yaxis: { title: { text: escaped(chart.unit), standoff: 6, font: { size: 11 } }, type: chart.log ? "log" : "linear", gridcolor: grid,
        linecolor: line, zeroline: false, automargin: true, exponentformat: "power",
        ...(chart.log ? { tickvals: ticks, ticktext: ticks.map(String) } : {}) },
    };
  }

  const options = { displayModeBar: false, responsive: true, displaylogo: false };
  async function drawAll() {
    for (const holder of holders) {
      const chart = data.charts.find((c) => c.key === holder.dataset.chart);
      await Plotly.react(holder, traces(chart, choice.value), layout(chart, choice.value), options);
      // The page stays alive between two pictures.
      await new Promise((done) => setTimeout(done, 0));
    }
    document.body.dataset.drawn = "yes";
    document.dispatchEvent(new Event("drawn"));
  }
  choice.addEventListener("change", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  // On paper a chart is as wide as the sheet.
  addEventListener("beforeprint", () => {
    for (const holder of holders) if (holder.data) Plotly.relayout(holder, { autosize: false, width: 640 });
  });
  addEventListener("afterprint", drawAll);
  await drawAll();
})();
