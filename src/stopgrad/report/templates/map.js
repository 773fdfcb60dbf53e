// The map of the features: data of report/parts/map.py on a plain canvas, which needs no WebGL.
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const box = document.getElementById("map"), canvas = box.querySelector("canvas"), tip = box.querySelector(".tip");
  const legend = document.getElementById("map-legend"), choice = document.getElementById("map-colour");
  const context = canvas.getContext("2d", { alpha: false });
  const num = data.x.length, px = new Float64Array(num), py = new Float64Array(num);
  const most = { x: Math.max(...data.x), y: Math.max(...data.y) };
  const sprite = new Image();
  let width = 0, height = 0, ratio = 1, zoom = 1, left = 0, top = 0, alone = -1, hovered = -1, waiting = false;
  let way = data.colourings[0], thumbs = 0, glyphs = new Map();

  for (const [number, colouring] of data.colourings.entries()) choice.add(new Option(colouring.name, number));

  // A point's picture is made once for each colour, shape and size, and then copied.
  function glyph(group, radius, faint) {
    const key = `${group.colour}${group.shape}${radius}${faint}`;
    if (glyphs.has(key)) return glyphs.get(key);
    const made = document.createElement("canvas"), size = Math.ceil((2 * radius + 2) * ratio);
    made.width = made.height = size;
    const c = made.getContext("2d");
    c.scale(ratio, ratio);
    c.translate(size / ratio / 2, size / ratio / 2);
    c.globalAlpha = faint ? 0.13 : 0.88;
    c.fillStyle = group.colour;
    c.beginPath();
    if (group.shape === 1) c.rect(-radius * 0.85, -radius * 0.85, radius * 1.7, radius * 1.7);
    else if (group.shape === 0) c.arc(0, 0, radius, 0, 7);
    else {
      const turn = group.shape === 2 ? -Math.PI / 2 : 0, corners = group.shape === 2 ? 3 : 4;
      for (let i = 0; i < corners; i++) {
        const a = turn + (i * 2 * Math.PI) / corners;
        c.lineTo(radius * 1.2 * Math.cos(a), radius * 1.2 * Math.sin(a));
      }
    }
    c.closePath();
    c.fill();
    c.globalAlpha = faint ? 0.1 : 0.9;
    c.lineWidth = 0.6;
    c.strokeStyle = "#fff";
    c.stroke();
    glyphs.set(key, made);
    return made;
  }

  function place() {
    const scale = Math.min((width - 28) / (most.x || 1), (height - 28) / (most.y || 1)) * zoom;
    const x0 = width / 2 - (most.x * scale) / 2 + left, y0 = height / 2 + (most.y * scale) / 2 + top;
    let visible = 0;
    for (let i = 0; i < num; i++) {
      px[i] = x0 + data.x[i] * scale;
      py[i] = y0 - data.y[i] * scale;
      visible += px[i] > 0 && px[i] < width && py[i] > 0 && py[i] < height;
    }
    thumbs = zoom > 1.5 && visible <= 400 ? Math.min(64, Math.max(18, 0.5 * Math.sqrt((width * height) / (visible || 1)))) : 0;
  }

  function thumbnail(c, i, x, y, size) {
    const s = data.side;
    c.imageSmoothingEnabled = size < s * 1.5 || s >= 48;
    c.drawImage(sprite, (i % data.columns) * s, Math.floor(i / data.columns) * s, s, s, x, y, size, size);
  }

  function draw() {
    waiting = false;
    const began = performance.now();
    place();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    const radius = Math.min(6, (num > 4000 ? 2.2 : num > 800 ? 2.9 : 4) * Math.sqrt(zoom) ** 0.7);
    for (const faint of [true, false]) {
      if (faint && alone < 0) continue;
      for (let i = 0; i < num; i++) {
        const x = px[i], y = py[i], group = way.group[i];
        if (x < -40 || y < -40 || x > width + 40 || y > height + 40) continue;
        if (faint !== (alone >= 0 && group !== alone)) continue;
        if (thumbs && sprite.complete && !faint) {
          context.fillStyle = way.groups[group].colour;
          context.fillRect(x - thumbs / 2 - 2, y - thumbs / 2 - 2, thumbs + 4, thumbs + 4);
          thumbnail(context, i, x - thumbs / 2, y - thumbs / 2, thumbs);
          continue;
        }
        // At whole pixels of the screen and without smoothing, copying is several times faster.
        const made = glyph(way.groups[group], radius, faint), half = made.width / 2;
        context.imageSmoothingEnabled = false;
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.drawImage(made, Math.round(x * ratio - half), Math.round(y * ratio - half));
      }
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    if (hovered >= 0) {
      context.strokeStyle = "#1c2330";
      context.lineWidth = 2;
      context.beginPath();
      context.arc(px[hovered], py[hovered], thumbs ? thumbs * 0.75 : radius + 3, 0, 7);
      context.stroke();
    }
    canvas.stopgrad.frame = performance.now() - began;
  }
  const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };

  function resize() {
    ratio = Math.min(2, window.devicePixelRatio || 1);
    width = box.clientWidth;
    height = box.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    glyphs = new Map();
    redraw();
  }

  function nearest(x, y) {
    let best = -1, least = Math.max(12, thumbs * 0.6) ** 2;
    for (let i = 0; i < num; i++) {
      if (alone >= 0 && way.group[i] !== alone) continue;
      const d = (px[i] - x) ** 2 + (py[i] - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  function line(text, bold) {
    const made = document.createElement("div");
    made.textContent = text;
    if (bold) made.className = "strong";
    tip.querySelector(".words").appendChild(made);
  }

  function hover(i) {
    if (i !== hovered) {
      hovered = i;
      redraw();
      if (i >= 0) {
        const shown = tip.querySelector("canvas");
        thumbnail(shown.getContext("2d"), i, 0, 0, shown.width);
        tip.querySelector(".words").replaceChildren();
        if (data.label[i] >= 0 && data.classes.length) line(data.classes[data.label[i]], true);
        if (data.predicted[i] >= 0) {
          const right = data.predicted[i] === data.label[i];
          line(right ? "k-NN agrees" : `k-NN says ${data.classes[data.predicted[i]]}`);
        }
        const cluster = data.colourings[data.colourings.length - 1];
        line(cluster.groups[cluster.group[i]].name, !data.classes.length);
        let set = 0, sum = data.counts[0];
        while (i >= sum) sum += data.counts[++set];
        line(data.sets[set] ? `${data.names[i]} (${data.sets[set]})` : data.names[i]);
      }
    }
    tip.hidden = i < 0;
    if (i < 0) return;
    const w = tip.offsetWidth, h = tip.offsetHeight, gap = 14 + thumbs / 2;
    const x = px[i] + gap + w < width ? px[i] + gap : px[i] - gap - w;
    tip.style.left = `${Math.max(4, Math.min(width - w - 4, x))}px`;
    tip.style.top = `${Math.max(4, Math.min(height - h - 4, py[i] - h / 2))}px`;
  }

  function zoomAt(x, y, factor) {
    const next = Math.min(60, Math.max(1, zoom * factor)), share = next / zoom;
    left = x - width / 2 - (x - width / 2 - left) * share;
    top = y - height / 2 - (y - height / 2 - top) * share;
    zoom = next;
    if (zoom === 1) left = top = 0;
    hover(-1);
    redraw();
  }

  const fingers = new Map();
  const where = (event) => { const r = canvas.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, where(event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = where(event), before = fingers.get(event.pointerId);
    if (!before) return hover(nearest(x, y));
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      zoomAt((x + other[0]) / 2, (y + other[1]) / 2, apart([x, y]) / apart(before));
    } else if (zoom > 1) {
      left += x - before[0];
      top += y - before[1];
      hover(-1);
      redraw();
    }
    fingers.set(event.pointerId, [x, y]);
  });
  const lift = (event) => {
    fingers.delete(event.pointerId);
    if (event.type === "pointerup") hover(nearest(...where(event)));
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => hover(-1));
  // The wheel scrolls the page until the map was clicked.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomAt(...where(event), Math.exp(-event.deltaY * 0.0016));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomAt(...where(event), 2));
  for (const button of box.querySelectorAll("button")) {
    button.addEventListener("click", () => zoomAt(width / 2, height / 2, Number(button.value)));
  }

  function fillLegend() {
    legend.replaceChildren();
    for (const [number, group] of way.groups.entries()) {
      const item = document.createElement("button"), mark = glyph({ ...group }, 5, false), count = document.createElement("span");
      item.type = "button";
      const shown = document.createElement("canvas");
      shown.width = mark.width;
      shown.height = mark.height;
      shown.style.width = `${mark.width / ratio}px`;
      shown.getContext("2d").drawImage(mark, 0, 0);
      const name = document.createElement("span");
      name.textContent = group.name;
      name.className = "name";
      count.textContent = group.count.toLocaleString("en");
      count.className = "faint";
      item.append(shown, name, count);
      item.setAttribute("aria-pressed", "false");
      item.addEventListener("click", () => {
        alone = alone === number ? -1 : number;
        for (const [other, button] of [...legend.children].entries()) button.setAttribute("aria-pressed", String(other === alone));
        redraw();
      });
      legend.append(item);
    }
  }
  choice.addEventListener("change", () => {
    way = data.colourings[Number(choice.value)];
    alone = -1;
    fillLegend();
    redraw();
  });

  canvas.stopgrad = { num, frame: 0, at: (i) => [px[i], py[i]], hovered: () => hovered, draw };
  sprite.onload = redraw;
  sprite.src = data.sprite;
  resize();
  fillLegend();
  new ResizeObserver(resize).observe(box);
})();
