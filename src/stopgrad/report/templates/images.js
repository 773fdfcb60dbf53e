// The images of a page: found by a text in path and class, picked, labelled, and saved as a list.
window.stopgradImages = (() => {
  function ints(value) {
    const bytes = Uint8Array.from(atob(value.packed), (c) => c.charCodeAt(0));
    const kind = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[value.bytes];
    return Int32Array.from(new kind(bytes.buffer), (one) => one - 1);
  }
  const read = (id) => JSON.parse(document.getElementById(id).textContent, (_, value) => (typeof value?.packed === "string" ? ints(value) : value));

  const data = read("images-data"), num = data.files.length, listeners = [];
  const picked = new Map();
  const get = (id) => document.getElementById(id);
  const find = get("find"), label = get("pick-label"), save = get("save-picked"), clear = get("clear-picked");
  const pickFound = get("pick-found"), setLabel = get("set-label");
  const ticks = new Map(), parts = [];
  let matches = null, texts = null, isSaved = true;

  for (const tick of document.querySelectorAll("input.pick")) {
    const i = Number(tick.value);
    if (!ticks.has(i)) ticks.set(i, []);
    ticks.get(i).push(tick);
    tick.disabled = false;
    tick.addEventListener("change", () => pick([i], tick.checked));
  }
  for (const part of document.querySelectorAll("[data-filtered]")) parts.push([part, [...part.querySelectorAll("input.pick")]]);

  const own = (i) => (data.label[i] >= 0 ? data.classes[data.label[i]] : "");
  const below = (i) => {
    const folder = data.folders[data.folder[i]];
    return folder && folder !== "." ? folder + data.separator + data.files[i] : data.files[i];
  };
  const path = (i) => (data.areFiles ? (data.root.endsWith(data.separator) ? data.root : data.root + data.separator) + below(i) : data.files[i]);

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    texts ??= Array.from({ length: num }, (_, i) => `${below(i)}\n${own(i)}`.toLowerCase());
    matches = words.length ? Uint8Array.from(texts, (text) => words.every((word) => text.includes(word))) : null;
    const found = matches ? matches.reduce((sum, one) => sum + one, 0) : num;
    get("found").textContent = matches ? `${found.toLocaleString("en")} of ${num.toLocaleString("en")} images` : "";
    pickFound.disabled = !matches || !found;
    for (const [part, own] of parts) {
      part.hidden = matches !== null && !own.some((tick) => matches[tick.value]);
      for (const tick of own) tick.closest(".tick").classList.toggle("unmatched", matches !== null && !matches[tick.value]);
    }
    for (const listener of listeners) listener();
  }

  function pick(numbers, on) {
    for (const i of numbers) {
      if (on && !picked.has(i)) picked.set(i, "");
      else if (!on) picked.delete(i);
      for (const tick of ticks.get(i) ?? []) tick.checked = on;
    }
    isSaved = false;
    show();
  }

  function show() {
    if (!isSaved) get("after-save").hidden = true;
    const counts = new Map();
    for (const given of picked.values()) if (given) counts.set(given, (counts.get(given) ?? 0) + 1);
    const open = picked.size - [...counts.values()].reduce((a, b) => a + b, 0);
    const named = [...counts].map(([name, count]) => `${name} ${count}`).join(", ");
    get("picked").textContent = `${picked.size.toLocaleString("en")} picked${named ? `: ${named}` : ""}`;
    save.disabled = clear.disabled = !picked.size;
    setLabel.disabled = !open || !label.value.trim();
    setLabel.textContent = open ? `Label ${open.toLocaleString("en")}` : "Label";
    for (const listener of listeners) listener();
  }

  // As Python reads it back: a byte of a name that is no text stands here as half of a pair.
  function bytesOf(text) {
    const parts = text.split(/([\udc80-\udcff])/u), encoder = new TextEncoder();
    return parts.map((part, at) => (at % 2 ? Uint8Array.of(part.charCodeAt(0) & 0xff) : encoder.encode(part)));
  }
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function list() {
    const numbers = [...picked.keys()].sort((a, b) => a - b), split = (i) => data.splits[data.split[i]];
    // Test images alone are one set.
    const withSplits = numbers.some((i) => split(i) === "train");
    const rows = [[data.areFiles ? "path" : "name", ...(withSplits ? ["split"] : []), "label"]];
    for (const i of numbers) rows.push([path(i), ...(withSplits ? [split(i)] : []), picked.get(i) || own(i)]);
    return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  }

  save.addEventListener("click", () => {
    const link = document.createElement("a"), url = URL.createObjectURL(new Blob(bytesOf(list()), { type: "text/csv" }));
    link.href = url;
    link.download = "picked.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    isSaved = true;
    get("after-save").hidden = false;
  });
  clear.addEventListener("click", () => pick([...picked.keys()], false));
  pickFound.addEventListener("click", () => pick(Array.from({ length: num }, (_, i) => i).filter((i) => matches[i]), true));
  const labelled = () => {
    const given = label.value.trim();
    for (const [i, before] of picked) if (!before) picked.set(i, given);
    isSaved = false;
    show();
  };
  setLabel.addEventListener("click", labelled);
  label.addEventListener("input", show);
  label.addEventListener("keydown", (event) => { if (event.key === "Enter" && !setLabel.disabled) labelled(); });
  let waiting = 0;
  find.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, num > 20000 ? 150 : 0); });
  addEventListener("beforeunload", (event) => { if (!isSaved && picked.size) event.preventDefault(); });

  show();
  return {
    num, read, own, below, classes: data.classes, list, pick, isPicked: (i) => picked.has(i), isFound: (i) => matches === null || matches[i] === 1,
    onChange: (listener) => listeners.push(listener),
  };
})();
