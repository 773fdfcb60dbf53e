// Plotly is in the page gzipped: unpacked here, once the page stands.
window.stopgradPlotly = (async () => {
  const packed = atob(document.getElementById("plotly-packed").textContent.trim());
  const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.appendChild(script);
  return window.Plotly;
})();
