// Looking at pictures: before and after with a divider, and a grid whose cells zoom and move in step.
(() => {
  const {el, component, position, button} = window.atelier;

  // What several panes look at: scale (CSS pixels per picture pixel, 0 to fit) and the centre, 0..1.
  const makeView = () => ({scale: 0, x: 0.5, y: 0.5, panes: []});
  const redraw = (view) => view.panes.forEach((pane) => pane());

  // A pane of pictures of one size in a stage that zooms by wheel, pinch or double click and moves by dragging.
  const makePane = (view, width, height, ...pictures) => {
    const sheet = el("div", {class: "at-sheet"}, ...pictures);
    const stage = el("div", {class: "at-stage", tabindex: "0"}, sheet);
    const fit = () => Math.min(stage.clientWidth / width, stage.clientHeight / height);
    const draw = () => {
      if (!stage.clientWidth) return;
      const scale = view.scale || Math.min(fit(), Math.max(1, 640 / width));
      const left = centred(stage.clientWidth, width * scale, view.x);
      const top = centred(stage.clientHeight, height * scale, view.y);
      sheet.style.cssText = `width:${width * scale}px;height:${height * scale}px;transform:translate(${left}px,${top}px)`;
      stage.classList.toggle("close", scale > 2 / devicePixelRatio);
      stage.at = {scale, left, top};
      stage.dispatchEvent(new Event("drawn"));
    };
    view.panes.push(draw);
    new ResizeObserver(draw).observe(stage);
    const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
      const {scale, left, top} = stage.at;
      const next = Math.max(fit() * 0.999, Math.min(16, scale * factor));
      const px = (x - left) / scale, py = (y - top) / scale;
      view.scale = next <= fit() ? 0 : next;
      view.x = (px + (stage.clientWidth / 2 - x) / next) / width;
      view.y = (py + (stage.clientHeight / 2 - y) / next) / height;
      redraw(view);
    };
    const move = (dx, dy) => {
      if (!view.scale) return;
      view.x = Math.max(0, Math.min(1, view.x - dx / (width * stage.at.scale)));
      view.y = Math.max(0, Math.min(1, view.y - dy / (height * stage.at.scale)));
      redraw(view);
    };
    gestures(stage, zoom, move);
    stage.addEventListener("keydown", (event) => {
      const keys = {"+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => { view.scale = 0; redraw(view); }, 1: () => { view.scale = 1 / devicePixelRatio; redraw(view); },
        ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40), ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0)};
      if (event.target === stage && keys[event.key] && (view.scale || !event.key.startsWith("Arrow"))) { keys[event.key](); event.preventDefault(); }
    });
    requestAnimationFrame(draw);
    return stage;
  };

  const centred = (room, size, place) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, room / 2 - size * place)));

  const gestures = (stage, zoom, move) => {
    const points = new Map();
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !stage.matches(":focus-within") && !stage.matches(".at-zoomed *")) return;
      event.preventDefault();
      const at = position(event, stage);
      zoom(Math.exp(-event.deltaY / 400), at.x, at.y);
    }, {passive: false});
    stage.addEventListener("dblclick", (event) => {
      const at = position(event, stage), one = 1 / devicePixelRatio;
      zoom(stage.at.scale < one * 0.99 ? one / stage.at.scale : 0.0001, at.x, at.y);
    });
    stage.addEventListener("pointerdown", (event) => {
      if (event.target.closest(".at-divider")) return;
      points.set(event.pointerId, event);
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      const last = points.get(event.pointerId);
      if (!last) return;
      if (points.size === 2) {
        const other = [...points.values()].find((one) => one.pointerId !== event.pointerId);
        const before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY);
        const after = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
        const at = position({clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2}, stage);
        if (before) zoom(after / before, at.x, at.y);
      } else move(event.clientX - last.clientX, event.clientY - last.clientY);
      points.set(event.pointerId, event);
    });
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => points.delete(event.pointerId));
  };

  const zoomBar = (view) => {
    const set = (scale) => { view.scale = scale; redraw(view); };
    return el("div", {class: "at-bar", role: "group", "aria-label": "Zoom"},
      button("Fit", "Fit the picture to the window (0)", () => set(0)),
      button("100%", "One picture pixel on one screen pixel (1)", () => set(1 / devicePixelRatio)),
      button("200%", "Two screen pixels for a picture pixel", () => set(2 / devicePixelRatio)));
  };

  // Value: {before, after, width, height, note}: addresses of pictures; either may be missing.
  window.atelier.viewer = (element, trigger, props, upload, watch) => {
    let split = 50, view = makeView(), size = "";
    component(element, trigger, props, watch, (root, value) => {
      if (!value?.before && !value?.after) {
        root.replaceChildren(...(props.empty ? [el("div", {class: "at-empty"}, el("p", {}, props.empty))] : []));
        return;
      }
      if (size !== `${value.width}x${value.height}`) view = {...makeView(), scale: 0};
      size = `${value.width}x${value.height}`;
      view.panes = [];
      const both = value.before && value.after;
      const under = el("img", {src: value.before || value.after, alt: both ? "before" : "picture", draggable: "false"});
      const over = both ? el("img", {src: value.after, alt: "after", class: "over", draggable: "false"}) : null;
      const stage = makePane(view, value.width, value.height, ...[under, over].filter(Boolean));
      if (both) stage.append(divider(stage, over, value.width, () => split, (next) => { split = next; }));
      const bar = el("div", {class: "at-viewer-bar"}, zoomBar(view), el("span", {class: "at-help"}, value.note || ""));
      root.replaceChildren(stage, bar);
    });
  };

  const divider = (stage, over, width, get, set) => {
    const line = el("div", {class: "at-divider", role: "slider", tabindex: "0", "aria-label": "Before and after", "aria-valuemin": 0, "aria-valuemax": 100},
      el("span", {class: "at-tag left"}, "before"), el("span", {class: "at-knob", "aria-hidden": "true"}, "↔"), el("span", {class: "at-tag right"}, "after"));
    const place = () => {
      if (!stage.at) return;
      const {scale, left} = stage.at, x = (get() / 100) * stage.clientWidth;
      const start = Math.max(0, left), end = Math.min(stage.clientWidth, left + width * scale);
      const at = Math.max(start, Math.min(end, x));
      line.style.left = `${at}px`;
      line.setAttribute("aria-valuenow", Math.round(get()));
      over.style.clipPath = `inset(0 0 0 ${Math.max(0, at - left)}px)`;
    };
    const go = (next) => { set(Math.max(0, Math.min(100, next))); place(); };
    line.addEventListener("pointerdown", (event) => { line.setPointerCapture(event.pointerId); event.stopPropagation(); });
    line.addEventListener("pointermove", (event) => {
      if (!line.hasPointerCapture(event.pointerId)) return;
      const at = position(event, stage);
      go((100 * at.x) / at.width);
    });
    line.addEventListener("keydown", (event) => {
      const steps = {ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100};
      if (event.key in steps) { go(get() + steps[event.key]); event.preventDefault(); }
    });
    stage.addEventListener("drawn", place);
    return line;
  };

  // Value: {cells: [{url, title, detail, width, height}], columns}.
  window.atelier.grid = (element, trigger, props, upload, watch) => {
    component(element, trigger, props, watch, (root, value) => {
      const cells = value?.cells || [];
      if (!cells.length) {
        root.replaceChildren(el("div", {class: "at-empty"}, el("p", {}, props.empty || "")));
        return;
      }
      const view = makeView();
      const tall = cells.length !== 4 && cells.some((cell) => cell.height > cell.width);  // four fit a window two by two
      const drawn = cells.map((cell) => el("figure", {class: "at-cell"},
        cell.url ? makePane(view, cell.width, cell.height, el("img", {src: cell.url, alt: cell.title, draggable: "false"})) : el("div", {class: "at-stage at-waiting"}, cell.error || "…"),
        el("figcaption", {}, el("strong", {}, cell.title), el("span", {class: "at-help"}, cell.detail || ""))));
      root.replaceChildren(zoomBar(view), el("div", {class: `at-grid${tall ? " tall" : ""}`, style: `--columns:${Math.min(cells.length, (value.columns || 3) + (tall ? 1 : 0))}`}, ...drawn));
    });
  };

  // Value: {items: [{id, url, title, detail}], more: whether there are others, open: {id, url, title, detail, facts,
  // links}}; sends {action, id}.
  window.atelier.gallery = (element, trigger, props, upload, watch) => {
    component(element, trigger, props, watch, (root, value, send) => {
      const items = value?.items || [];
      const act = (action, id) => send({items, more: value?.more, action, id});
      const tiles = items.map((item) => el("button", {type: "button", class: "at-made", "data-id": item.id, "aria-label": `${item.title}, ${item.detail}`, onclick: () => act("show", item.id)},
        el("img", {src: item.url, alt: "", loading: "lazy"}), el("span", {class: "at-name"}, item.title), el("span", {class: "at-help"}, item.detail)));
      const panel = el("div", {});
      const close = (id) => { panel.replaceChildren(); root.querySelector(`[data-id="${CSS.escape(id)}"]`)?.focus(); };
      root.replaceChildren(panel, items.length ? el("div", {class: "at-gallery"}, ...tiles) : el("div", {class: "at-empty"}, el("p", {}, props.empty || "")));
      if (value?.more) root.append(button("More", "Show older pictures too", () => act("more", ""), {class: "at-button at-more"}));
      if (value?.open) panel.append(detail(value.open, act, close));
      panel.querySelector("button")?.focus();
    });
  };

  const detail = (item, act, close) => {
    const facts = item.facts.flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)]);
    const remove = button("Delete", "Delete this picture for good", (event) => {
      if (event.target.dataset.sure) act("delete", item.id);
      else { event.target.dataset.sure = "yes"; event.target.textContent = "Delete for good?"; }
    }, {class: "at-button at-danger"});
    return el("div", {class: "at-detail", role: "dialog", "aria-label": item.title, onkeydown: (event) => { if (event.key === "Escape") close(item.id); }},
      el("img", {src: item.url, alt: item.title}),
      el("div", {class: "at-facts"}, button("×", "Close", () => close(item.id), {class: "at-button at-corner"}),
        el("h3", {}, item.title), el("p", {class: "at-help"}, item.detail), el("dl", {}, ...facts),
        el("div", {class: "at-actions"}, button("Open in Paint", "Set everything as it was for this picture", () => act("open", item.id), {class: "at-button at-primary"}),
          ...item.links.map((link) => el("a", {class: "at-button", href: link.url, download: link.name}, link.label)), remove)));
  };
})();
