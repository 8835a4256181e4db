// A picture to paint on: what is painted is hidden from a model. Used by the notebook's widget and
// by the demo. `hidden` is a text with one digit for each pixel, row by row, 1 = hidden.
// Mouse, pen or finger paint; the arrow keys move a cell, and the space bar hides or shows it.
function makePainter(host, { image, size, hidden, changed }) {
  const cells = 8, step = size / cells;  // a cell is what the keyboard and the presets work with
  const mask = new Uint8Array(size * size);
  let erase = false, drawing = null, cursor = null;
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const canvas = element("canvas", { width: size, height: size, tabIndex: 0 });
  canvas.className = "l2l-canvas";
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label",
    "Paint what is hidden. Arrow keys move a cell, the space bar hides or shows it.");
  const pen = canvas.getContext("2d"), picture = new Image();
  const brush = element("input", { type: "range", min: 1, max: 8, value: 3 });
  brush.setAttribute("aria-label", "Size of the brush");
  const said = element("output");

  function draw() {
    pen.clearRect(0, 0, size, size);
    if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, size, size);
    const shown = pen.getImageData(0, 0, size, size), width = Math.max(1, size >> 4);
    for (let at = 0; at < mask.length; at++) {
      if (!mask[at]) continue;
      const stripe = (((at % size) + Math.floor(at / size)) / width) & 1;
      shown.data.set(stripe ? [148, 163, 184, 255] : [203, 213, 225, 255], 4 * at);
    }
    pen.putImageData(shown, 0, 0);
    if (cursor) {
      pen.strokeStyle = "#ea580c";
      pen.strokeRect(cursor[0] * step + 0.5, cursor[1] * step + 0.5, step - 1, step - 1);
    }
  }
  function report() {
    const count = mask.reduce((sum, each) => sum + each, 0);
    said.textContent = `${Math.round((100 * count) / mask.length)} % hidden`;
    canvas.dataset.hidden = count;
    changed(mask.join(""));
  }
  function fill(rule) {
    for (let at = 0; at < mask.length; at++) mask[at] = rule(at % size, Math.floor(at / size)) ? 1 : 0;
    draw();
    report();
  }
  function dab(x, y) {
    const radius = (brush.value * size) / 48;
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(size - 1, y + radius); row++) {
      for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(size - 1, x + radius); column++) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) mask[row * size + column] = erase ? 0 : 1;
      }
    }
  }
  function stroke(event) {
    const box = canvas.getBoundingClientRect();
    const here = [event.clientX - box.left, event.clientY - box.top].map((each) => (each * size) / box.width);
    const [x, y] = drawing, length = Math.hypot(here[0] - x, here[1] - y);
    for (let at = 0; at <= length; at += 0.5) {
      const share = length ? at / length : 0;
      dab(x + share * (here[0] - x), y + share * (here[1] - y));
    }
    drawing = here;
    draw();
  }
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    drawing = [event.clientX - box.left, event.clientY - box.top].map((each) => (each * size) / box.width);
    canvas.setPointerCapture(event.pointerId);
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => drawing && stroke(event));
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, () => {
      if (drawing) report();
      drawing = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in moves) && event.key !== " ") return;
    event.preventDefault();
    const [dx, dy] = cursor && moves[event.key] ? moves[event.key] : [0, 0];
    const inside = (value) => Math.min(cells - 1, Math.max(0, value));
    cursor = cursor ? [inside(cursor[0] + dx), inside(cursor[1] + dy)] : [cells >> 1, cells >> 1];
    if (event.key === " ") {
      const [left, top] = cursor.map((each) => Math.floor(each * step));
      const value = mask[top * size + left] ? 0 : 1;
      for (let y = top; y < top + step; y++) mask.fill(value, y * size + left, y * size + left + step);
      report();
    }
    draw();
  });
  canvas.addEventListener("blur", () => { cursor = null; draw(); });

  const quarter = size / 4, middle = (each) => each >= quarter && each < size - quarter;
  const presets = {
    "Centre": (x, y) => middle(x) && middle(y),
    "All but the centre": (x, y) => !(middle(x) && middle(y)),
    "Left half": (x) => x < size / 2,
    "Lower half": (x, y) => y >= size / 2,
    "Clear": () => false,
  };
  const eraser = element("button", { type: "button", textContent: "Erase" });
  eraser.setAttribute("aria-pressed", "false");
  eraser.addEventListener("click", () => {
    erase = !erase;
    eraser.setAttribute("aria-pressed", String(erase));
  });
  const buttons = Object.entries(presets).map(([name, rule]) => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => fill(rule));
    return button;
  });
  const style = element("style", { textContent: `
    .l2l-painter { max-width: 340px; font: 14px/1.4 system-ui, sans-serif; }
    .l2l-canvas { width: 100%; aspect-ratio: 1; image-rendering: pixelated; touch-action: none;
                  cursor: crosshair; display: block; border: 1px solid #94a3b8; }
    .l2l-painter .tools { display: flex; flex-wrap: wrap; gap: 6px; margin: 6px 0; align-items: center; }
    .l2l-painter button { font: inherit; color: inherit; padding: 4px 10px; border: 1px solid #94a3b8;
                          border-radius: 8px; background: transparent; cursor: pointer; }
    .l2l-painter button[aria-pressed="true"] { background: #94a3b8; color: #0f172a; }
    .l2l-painter :focus-visible { outline: 3px solid #2563eb; }` });
  host.replaceChildren(element("div", { className: "l2l-painter" }, style, canvas,
    element("div", { className: "tools" }, element("label", {}, "Brush ", brush), eraser, said),
    element("div", { className: "tools" }, ...buttons)));

  function show(next) {
    picture.onload = draw;
    picture.src = next;
  }
  function set(text) {
    if (text.length !== mask.length) return;
    for (let at = 0; at < mask.length; at++) mask[at] = text[at] === "1" ? 1 : 0;
    draw();
  }
  if (hidden) set(hidden);
  show(image);
  return { show, set };
}
