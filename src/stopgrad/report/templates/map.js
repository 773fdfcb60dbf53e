// The map of the features: data of report/parts/map.py on a plain canvas, which needs no WebGL. Point i is image i.
(() => {
  const images = window.stopgradImages, data = images.read("map-data");
  const box = document.getElementById("map"), canvas = box.querySelector("canvas"), tip = box.querySelector(".tip");
  const legend = document.getElementById("map-legend"), choice = document.getElementById("map-colour");
  const picking = document.getElementById("pick-points");
  const context = canvas.getContext("2d", { alpha: false });
  const num = data.x.length, px = new Float64Array(num), py = new Float64Array(num);
  const highest = (values) => values.reduce((a, b) => Math.max(a, b), 0), most = { x: highest(data.x), y: highest(data.y) };
  // The place of each point's picture in the sprite, or -1.
  const pictured = data.pictured ? new Int32Array(num).fill(-1) : null;
  data.pictured?.forEach((point, at) => { pictured[point] = at; });
  const sprite = new Image();
  let width = 0, height = 0, ratio = 1, zoom = 1, left = 0, top = 0, alone = -1, hovered = -1, waiting = false;
  let way = data.colourings[0], thumbs = 0, glyphs = new Map(), screen = null, paper = "#fff", ink = "#000", lasso = null;
  let large = [], isStale = true;

  for (const [number, colouring] of data.colourings.entries()) choice.add(new Option(colouring.name, number));

  const isShown = (i) => (alone < 0 || way.group[i] === alone) && images.isFound(i);
  const picture = (i) => (pictured ? pictured[i] : i);

  // A point's picture is made once for each colour, shape and size, and then copied.
  function glyph(group, radius, faint, marked) {
    const key = `${group.colour}${group.shape}${radius}${faint}${marked}`;
    if (glyphs.has(key)) return glyphs.get(key);
    const made = document.createElement("canvas"), size = Math.ceil((2 * radius + (marked ? 8 : 2)) * ratio);
    made.width = made.height = size;
    const c = made.getContext("2d");
    c.scale(ratio, ratio);
    c.translate(size / ratio / 2, size / ratio / 2);
    if (marked) {
      c.lineWidth = 1.8;
      c.strokeStyle = ink;
      c.beginPath();
      c.arc(0, 0, radius + 2.4, 0, 7);
      c.stroke();
    }
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
    if (radius > 2) {
      c.globalAlpha = faint ? 0.1 : 0.9;
      c.lineWidth = 0.6;
      c.strokeStyle = paper;
      c.stroke();
    }
    made.pixels = c.getImageData(0, 0, size, size).data;
    glyphs.set(key, made);
    return made;
  }

  // Pixel by pixel: several times as fast as drawImage for many small pictures.
  function blend(made, x, y) {
    const side = made.width, from = made.pixels, to = screen.data, x0 = Math.round(x - side / 2), y0 = Math.round(y - side / 2);
    const first = Math.max(0, -x0), last = Math.min(side, screen.width - x0);
    for (let row = Math.max(0, -y0), end = Math.min(side, screen.height - y0); row < end; row++) {
      for (let a = 4 * (row * side + first), b = 4 * ((y0 + row) * screen.width + x0 + first), stop = a + 4 * (last - first); a < stop; a += 4, b += 4) {
        const share = from[a + 3] / 255;
        if (!share) continue;
        to[b] += (from[a] - to[b]) * share;
        to[b + 1] += (from[a + 1] - to[b + 1]) * share;
        to[b + 2] += (from[a + 2] - to[b + 2]) * share;
      }
    }
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
    const s = data.side, at = picture(i);
    c.imageSmoothingEnabled = size < s * 1.5 || s >= 48;
    c.drawImage(sprite, (at % data.columns) * s, Math.floor(at / data.columns) * s, s, s, x, y, size, size);
  }

  function drawPoints(radius) {
    const made = [];
    new Uint32Array(screen.data.buffer).fill(colourOf(paper));
    large = [];
    // Those left out by the legend or the search lie below the others, picked ones above.
    for (const level of [0, 1, 2]) {
      for (let i = 0; i < num; i++) {
        const x = px[i], y = py[i];
        if (x < -40 || y < -40 || x > width + 40 || y > height + 40) continue;
        const faint = !isShown(i), marked = images.isPicked(i);
        if (level !== (marked ? 2 : faint ? 0 : 1)) continue;
        if (thumbs && sprite.complete && !faint && picture(i) >= 0) large.push(i);
        else {
          const group = way.group[i], one = (made[4 * group + 2 * marked + faint] ??= glyph(way.groups[group], radius, faint, marked));
          blend(one, x * ratio, y * ratio);
        }
      }
    }
  }

  function draw() {
    waiting = false;
    if (!screen) return;
    const began = performance.now();
    const radius = Math.min(6, (num > 40000 ? 1.3 : num > 4000 ? 2.2 : num > 800 ? 2.9 : 4) * Math.sqrt(zoom) ** 0.7);
    if (isStale) {
      isStale = false;
      place();
      drawPoints(radius);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.putImageData(screen, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const i of large) {
      const x = px[i], y = py[i], edge = images.isPicked(i) ? 6 : 2;
      if (edge > 2) {
        context.fillStyle = ink;
        context.fillRect(x - thumbs / 2 - edge, y - thumbs / 2 - edge, thumbs + 2 * edge, thumbs + 2 * edge);
      }
      context.fillStyle = way.groups[way.group[i]].colour;
      context.fillRect(x - thumbs / 2 - 2, y - thumbs / 2 - 2, thumbs + 4, thumbs + 4);
      thumbnail(context, i, x - thumbs / 2, y - thumbs / 2, thumbs);
    }
    context.strokeStyle = ink;
    context.lineWidth = 2;
    if (hovered >= 0) {
      context.beginPath();
      context.arc(px[hovered], py[hovered], thumbs ? thumbs * 0.75 : radius + 3, 0, 7);
      context.stroke();
    }
    if (lasso) {
      context.setLineDash([5, 4]);
      context.beginPath();
      for (const [x, y] of lasso) context.lineTo(x, y);
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
    canvas.stopgrad.frame = performance.now() - began;
  }
  // What only points at something leaves the points as they are drawn.
  const redraw = (points = true) => {
    isStale ||= points;
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  };

  // A colour of the style sheet as a pixel.
  function colourOf(text) {
    context.fillStyle = text;
    const hex = parseInt(context.fillStyle.slice(1), 16);
    return ((255 << 24) | ((hex & 255) << 16) | (hex & 0xff00) | (hex >> 16)) >>> 0;
  }

  function resize() {
    const style = getComputedStyle(box);
    paper = style.getPropertyValue("--paper").trim();
    ink = style.getPropertyValue("--ink").trim();
    ratio = Math.min(2, window.devicePixelRatio || 1);
    width = box.clientWidth;
    height = box.clientHeight;
    if (!width || !height) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    screen = context.createImageData(canvas.width, canvas.height);
    glyphs = new Map();
    redraw();
  }

  function nearest(x, y, reach = Math.max(12, thumbs * 0.6)) {
    let best = -1, least = reach ** 2;
    for (let i = 0; i < num; i++) {
      const d = (px[i] - x) ** 2 + (py[i] - y) ** 2;
      if (d < least && isShown(i)) { least = d; best = i; }
    }
    return best;
  }

  // The nearest point in a direction, as seen from the one that is pointed at.
  function beside(dx, dy) {
    if (hovered < 0) return nearest(width / 2, height / 2, Infinity);
    let best = hovered, least = Infinity;
    for (let i = 0; i < num; i++) {
      const x = px[i] - px[hovered], y = py[i] - py[hovered], along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
      const d = along + 2 * across;
      if (along > 0.5 && across <= along && d < least && isShown(i)) { least = d; best = i; }
    }
    return best;
  }

  function within(x, y, corners) {
    let inside = false;
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
      const [ax, ay] = corners[i], [bx, by] = corners[j];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  }

  function pickAll(numbers) {
    // A second time takes them out again.
    if (numbers.length) images.pick(numbers, !numbers.every(images.isPicked));
    hover(-1);
  }

  function closeLasso() {
    const corners = lasso, found = [];
    lasso = null;
    for (let i = 0; i < num; i++) if (isShown(i) && within(px[i], py[i], corners)) found.push(i);
    pickAll(found);
    redraw(false);
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
      redraw(false);
      if (i >= 0) {
        const shown = tip.querySelector("canvas");
        shown.hidden = picture(i) < 0;
        if (!shown.hidden) thumbnail(shown.getContext("2d"), i, 0, 0, shown.width);
        tip.querySelector(".words").replaceChildren();
        const own = images.own(i);
        if (own) line(own, true);
        if (data.predicted[i] >= 0) {
          const right = data.predicted[i] === data.label[i];
          line(right ? "k-NN agrees" : `k-NN says ${images.classes[data.predicted[i]]}`);
        }
        const cluster = data.colourings[data.colourings.length - 1];
        line(cluster.groups[cluster.group[i]].name, !own);
        let set = 0, sum = data.counts[0];
        while (i >= sum) sum += data.counts[++set];
        const name = images.below(i).split(/[\\/]/).slice(-2).join("/");
        line(data.sets[set] ? `${name} (${data.sets[set]})` : name);
        if (images.isPicked(i)) line("picked");
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
  const picks = (event) => event.shiftKey || picking.getAttribute("aria-pressed") === "true";
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, where(event));
    canvas.setPointerCapture(event.pointerId);
    lasso = picks(event) && fingers.size === 1 ? [where(event)] : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = where(event), before = fingers.get(event.pointerId);
    if (!before) return hover(nearest(x, y));
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      zoomAt((x + other[0]) / 2, (y + other[1]) / 2, apart([x, y]) / apart(before));
    } else if (lasso) {
      lasso.push([x, y]);
      hover(-1);
      redraw(false);
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
    if (event.type !== "pointerup") { lasso = null; return redraw(false); }
    const [x, y] = where(event), reach = lasso?.reduce((far, p) => Math.max(far, Math.hypot(p[0] - x, p[1] - y)), 0);
    if (lasso && reach > 6) return closeLasso();
    const point = nearest(x, y);
    if (lasso && point >= 0) pickAll([point]);
    lasso = null;
    hover(point);
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
  picking.addEventListener("click", () => {
    const on = picking.getAttribute("aria-pressed") !== "true";
    picking.setAttribute("aria-pressed", String(on));
    canvas.classList.toggle("picks", on);
  });
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (ways[event.key]) {
      const point = beside(...ways[event.key]);
      // Brought into sight, where it is not.
      if (point >= 0 && (px[point] < 0 || px[point] > width || py[point] < 0 || py[point] > height)) {
        left += width / 2 - px[point];
        top += height / 2 - py[point];
        place();
        redraw();
      }
      hover(point);
    } else if ((event.key === "Enter" || event.key === " ") && hovered >= 0) {
      const point = hovered;
      pickAll([point]);
      hover(point);
    }
    else if (event.key === "+" || event.key === "=") zoomAt(width / 2, height / 2, 1.6);
    else if (event.key === "-") zoomAt(width / 2, height / 2, 0.625);
    else if (event.key === "0") zoomAt(width / 2, height / 2, 0);
    else if (event.key === "Escape") hover(-1);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => hover(-1));
  for (const button of box.querySelectorAll("button[value]")) {
    button.addEventListener("click", () => zoomAt(width / 2, height / 2, Number(button.value)));
  }

  function fillLegend() {
    legend.replaceChildren();
    for (const [number, group] of way.groups.entries()) {
      const item = document.createElement("button"), mark = glyph(group, 5, false, false), count = document.createElement("span");
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

  canvas.stopgrad = { num, frame: 0, at: (i) => [px[i], py[i]], hovered: () => hovered, draw: () => { isStale = true; draw(); } };
  images.onChange(() => redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { resize(); fillLegend(); });
  sprite.onload = () => redraw();
  sprite.src = data.sprite;
  resize();
  fillLegend();
  new ResizeObserver(resize).observe(box);
})();
