// Final accuracies against their costs, and arms picked out: data of report/study.py, drawn with Plotly.
(async () => {
  const data = JSON.parse(document.getElementById("scatter-data").textContent);
  const choice = document.getElementById("accuracy");
  const holders = [...document.querySelectorAll("[data-scatter]")];
  const buttons = [...document.querySelectorAll(".keys button")];
  let Plotly, picked = null;
  try {
    Plotly = await window.stopgradPlotly;
  } catch (error) {
    for (const holder of holders) holder.textContent = "This browser is too old to draw the plots.";
    return;
  }
  const font = { family: 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif', size: 12, color: "#1c2330" };
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  // Plotly's labels do not wrap by themselves.
  const folded = (text) => text.replace(/(.{1,44})(\s+|$)|(.{44})/g, "$1$3\n").trim().split("\n").map(escaped).join("<br>");
  const line = { gridcolor: "#eef0f3", linecolor: "#cfd4dc", zeroline: false, automargin: true };

  function draw(holder) {
    const axis = holder.dataset.scatter, figure = choice.value;
    const points = data.points.filter((point) => figure in point.figures && point[axis] !== null);
    const along = points.map((point) => point[axis]).filter((x) => x > 0);
    const log = along.length === points.length && Math.max(...along) > 12 * Math.min(...along);
    const traces = points.map((point) => {
      const { mean, std } = point.figures[figure];
      return {
        x: [point[axis]], y: [mean], type: "scatter", mode: "markers", meta: point.group,
        marker: { color: point.colour, symbol: point.symbol, size: 10, line: { color: "#fff", width: 1 } },
        error_y: std === null ? undefined : { type: "data", array: [std], color: point.colour, thickness: 1.5, width: 3 },
        text: folded(point.name), hoverlabel: { align: "left" },
        hovertemplate: `%{text}<br>%{y:.1f}%${std === null ? "" : ` ± ${std.toFixed(1)}`}, %{x:,.4~g} ${data.axes[axis]}<extra></extra>`,
      };
    });
    const layout = {
      height: 280, margin: { l: 50, r: 12, t: 8, b: 42 }, font, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
      hovermode: "closest", hoverlabel: { font: { size: 12 } }, showlegend: false,
      xaxis: { ...line, title: { text: data.axes[axis] + (log ? " (log scale)" : ""), standoff: 6 }, type: log ? "log" : "linear",
        rangemode: "tozero", ticks: "outside", tickcolor: "#cfd4dc", nticks: 5, ...(log ? { dtick: "D2" } : {}) },
      yaxis: { ...line, title: { text: "top-1, %", standoff: 6 } },
    };
    return Plotly.react(holder, traces, layout, { displayModeBar: false, responsive: true, displaylogo: false });
  }

  function emphasise() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === picked));
    for (const holder of document.querySelectorAll("[data-scatter], [data-chart]")) {
      if (!holder.data) continue;
      Plotly.restyle(holder, { opacity: holder.data.map((t) => (picked === null || String(t.meta) === picked ? 1 : 0.12)) });
    }
  }

  async function drawAll() {
    for (const holder of holders) await draw(holder);
    emphasise();
  }
  for (const button of buttons) {
    button.addEventListener("click", () => { picked = picked === button.value ? null : button.value; emphasise(); });
  }
  document.addEventListener("drawn", emphasise);
  if (data) {
    choice.addEventListener("change", drawAll);
    await drawAll();
  }
  document.body.dataset.scattered = "yes";
})();
