// Painting masks on a photo: one or several layers, each in its own colour; brush, eraser, and selection by
// clicks, which Python answers. Value: {photo, width, height, layers: [{name, mask}], active, note}; masks are
// addresses of white on transparent PNGs. Sends the same, or {click: {x, y, add}}, {edges: true}.
(() => {
  const {el, component, position, button, picker} = window.atelier;
  const COLOURS = ["#12a4d9", "#f2b134", "#e4572e", "#5aa469", "#8e5aa8", "#d45087"];
  const SIDE = 1024, STEPS = 20;

  window.atelier.mask = (element, trigger, props, upload, watch) => {
    let tool = "brush", size = 40, layers = [], active = 0, photo = null, undo = [], send;
    const context = (layer) => layer.canvas.getContext("2d", {willReadFrequently: true});
    const scale = (value) => Math.min(1, SIDE / Math.max(value.width, value.height));

    // The layer with its canvas, which is drawn again only if Python sent another mask than it shows.
    const load = (one, old, value) => {
      const fresh = {canvas: el("canvas", {width: Math.round(value.width * scale(value)), height: Math.round(value.height * scale(value))}), empty: true, sent: null};
      const layer = {...(old || fresh), name: one.name}, mask = one.mask || null;
      if (mask === layer.sent) return layer;
      const pen = context(layer), {width, height} = layer.canvas;
      layer.sent = mask;
      layer.empty = !mask;
      if (!mask) pen.clearRect(0, 0, width, height);
      else {
        const image = new Image();
        image.onload = () => { pen.clearRect(0, 0, width, height); pen.drawImage(image, 0, 0, width, height); layer.canvas.dispatchEvent(new Event("painted")); };
        image.src = mask;
      }
      return layer;
    };

    const remember = () => {
      const {canvas} = layers[active];
      undo = [...undo, {layer: active, data: context(layers[active]).getImageData(0, 0, canvas.width, canvas.height), empty: layers[active].empty}].slice(-STEPS);
    };

    const build = (root, value) => {
      const view = el("canvas", {class: "at-mask-view", width: layers[0].canvas.width, height: layers[0].canvas.height});
      const ring = el("div", {class: "at-ring"});
      const stage = el("div", {class: "at-mask-stage", tabindex: "0", role: "application", "aria-label": "Mask: paint on the photo",
        style: `width:min(100%, ${Math.round(62 * value.width / value.height)}vh)`},
        el("img", {src: value.photo, alt: "photo", draggable: "false"}), view, ring);
      const paint = () => {
        const pen = view.getContext("2d");
        pen.clearRect(0, 0, view.width, view.height);
        layers.forEach((layer, index) => pen.drawImage(tinted(layer, index), 0, 0));
      };
      layers.forEach((layer) => layer.canvas.addEventListener("painted", paint));
      strokes(stage, ring, paint);
      const change = (work) => { remember(); work(context(layers[active]), layers[active]); paint(); send(); };
      const tools = [["brush", "Brush", "Paint with the brush (B)"], ["erase", "Erase", "Erase with the brush (E)"], ["select", "Select", "Click to select a part; Shift-click takes it away (S)"]];
      const chooser = tools.map(([id, text, title]) => button(text, title, () => { tool = id; mark(); }, {"data-tool": id}));
      const mark = () => { chooser.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.tool === tool))); stage.dataset.tool = tool; };
      const range = el("input", {type: "range", min: 4, max: 200, step: 1, "aria-label": "Brush size", oninput: () => { size = Number(range.value); fill(); }});
      const fill = () => range.style.setProperty("--part", `${(100 * (range.value - 4)) / 196}%`);
      range.value = size;
      fill();
      const invert = (pen, layer) => { pen.globalCompositeOperation = "xor"; pen.fillStyle = "#fff"; pen.fillRect(0, 0, layer.canvas.width, layer.canvas.height); pen.globalCompositeOperation = "source-over"; layer.empty = false; };
      const clear = (pen, layer) => { pen.clearRect(0, 0, layer.canvas.width, layer.canvas.height); layer.empty = true; };
      const back = () => {
        const last = undo.pop();
        if (!last) return;
        const layer = layers[last.layer];
        context(layer).putImageData(last.data, 0, 0);
        layer.empty = last.empty;
        paint();
        send();
      };
      const file = el("input", {type: "file", accept: "image/*,.tif,.tiff", class: "at-hidden", "aria-label": "Load a mask file",
        onchange: async () => { if (file.files[0]) { remember(); const {path} = await upload(file.files[0]); send({file: {path, name: file.files[0].name}}); } }});
      const names = layers.length > 1 || props.several
        ? el("div", {class: "at-layers", role: "radiogroup", "aria-label": "Regions"}, ...layers.map((layer, index) =>
            el("button", {type: "button", role: "radio", "aria-checked": String(index === active), class: "at-layer", style: `--colour:${COLOURS[index % COLOURS.length]}`, onclick: () => { active = index; send(); build(root, value); }}, layer.name)),
            props.several && layers.length < COLOURS.length ? button("+ Region", "Add a region", () => send({added: true})) : null,
            props.several && layers.length > 1 ? button("− Region", "Remove this region", () => send({removed: active})) : null)
        : null;
      const bar = el("div", {class: "at-bar", role: "toolbar", "aria-label": "Mask tools"}, ...chooser, el("label", {class: "at-size"}, "Size", range),
        button("Snap to edges", "Fit the selection to the edges of the object", () => { remember(); send({edges: true}); }),
        button("Invert", "Swap what is selected and what is not", () => change(invert)),
        button("Clear", "Clear this mask", () => change(clear)),
        button("Undo", "Undo the last step (Ctrl+Z)", back),
        el("label", {class: "at-button", title: "Load a mask file: white where the style goes"}, file, "Load mask"));
      stage.addEventListener("keydown", (event) => {
        const key = event.key.toLowerCase();
        if ((event.ctrlKey || event.metaKey) && key === "z") back();
        else if ({b: 1, e: 1, s: 1}[key]) { tool = {b: "brush", e: "erase", s: "select"}[key]; mark(); }
        else if (!keyboard(event, stage, paint)) return;
        event.preventDefault();
      });
      mark();
      root.replaceChildren(...[names, bar, stage, value.note ? el("p", {class: "at-help", role: "status"}, value.note) : null].filter(Boolean));
      paint();
    };

    const tinted = (layer, index) => {
      const copy = el("canvas", {width: layer.canvas.width, height: layer.canvas.height}), pen = copy.getContext("2d");
      pen.drawImage(layer.canvas, 0, 0);
      pen.globalCompositeOperation = "source-in";
      pen.globalAlpha = index === active ? 0.62 : 0.38;
      pen.fillStyle = COLOURS[index % COLOURS.length];
      pen.fillRect(0, 0, copy.width, copy.height);
      return copy;
    };

    const dab = (from, to, stage) => {
      const layer = layers[active], pen = context(layer), ratio = layer.canvas.width / stage.clientWidth;
      pen.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
      pen.strokeStyle = "#fff";
      pen.lineCap = pen.lineJoin = "round";
      pen.lineWidth = size * ratio;
      pen.beginPath();
      pen.moveTo(from.x * ratio, from.y * ratio);
      pen.lineTo(to.x * ratio + 0.01, to.y * ratio);
      pen.stroke();
      pen.globalCompositeOperation = "source-over";
      layer.empty = false;
    };

    const strokes = (stage, ring, paint) => {
      let last = null;
      const follow = (at) => { ring.style.cssText = `left:${at.x}px;top:${at.y}px;width:${size}px;height:${size}px`; };
      stage.addEventListener("pointerdown", (event) => {
        const at = position(event, stage);
        if (tool === "select") { click(at, !event.shiftKey && !event.altKey); return; }
        remember();
        stage.setPointerCapture(event.pointerId);
        last = at;
        dab(at, at, stage);
        paint();
      });
      stage.addEventListener("pointermove", (event) => {
        const at = position(event, stage);
        follow(at);
        if (!last) return;
        dab(last, at, stage);
        last = at;
        paint();
      });
      const end = () => { if (last) { last = null; send(); } };
      stage.addEventListener("pointerup", end);
      stage.addEventListener("pointercancel", end);
    };

    const click = (at, add) => { remember(); send({click: {x: at.x / at.width, y: at.y / at.height, add}}); };

    // Arrow keys move the brush, Space and Enter use it.
    const keyboard = (event, stage, paint) => {
      const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
      const at = stage.cursor || (stage.cursor = {x: stage.clientWidth / 2, y: stage.clientHeight / 2, width: stage.clientWidth, height: stage.clientHeight});
      if (steps[event.key]) {
        const reach = event.shiftKey ? 5 : 20;
        at.x = Math.max(0, Math.min(at.width, at.x + steps[event.key][0] * reach));
        at.y = Math.max(0, Math.min(at.height, at.y + steps[event.key][1] * reach));
        stage.querySelector(".at-ring").style.cssText = `left:${at.x}px;top:${at.y}px;width:${size}px;height:${size}px;opacity:1`;
        return true;
      }
      if (event.key !== " " && event.key !== "Enter") return false;
      if (tool === "select") click(at, !event.shiftKey);
      else { remember(); dab(at, at, stage); paint(); send(); }
      return true;
    };

    component(element, trigger, props, watch, (root, value, tell) => {
      send = (extra = {}) => {
        layers.forEach((one) => { one.sent = one.empty ? null : one.canvas.toDataURL("image/png"); });
        tell({photo: value.photo, width: value.width, height: value.height, active, layers: layers.map((one) => ({name: one.name, mask: one.sent})), ...extra});
      };
      if (value?.photo !== photo) { layers = []; undo = []; }
      photo = value?.photo;
      if (!photo) {
        root.replaceChildren(el("div", {class: "at-empty"}, el("p", {}, props.empty || "")));
        return;
      }
      active = Math.min(value.active || 0, value.layers.length - 1);
      layers = value.layers.map((one, index) => load(one, layers[index], value));
      build(root, value);
    });
  };
})();
