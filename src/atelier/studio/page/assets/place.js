// Placing an object on a painting. Value: {painting, object, width, height, ratio, x, y, scale}: x and y are the
// object's centre and scale its width, as parts of the painting's width and height.
(() => {
  const {el, component, position, calm} = window.atelier;

  window.atelier.place = (element, trigger, props, upload, watch) => {
    component(element, trigger, props, watch, (root, value, send) => {
      if (!value?.painting || !value?.object) {
        root.replaceChildren(el("div", {class: "at-empty"}, el("p", {}, props.empty || "")));
        return;
      }
      const at = {...value};
      const object = el("img", {src: value.object, alt: "object", draggable: "false", class: "at-object"});
      const corner = el("span", {class: "at-handle", "aria-hidden": "true"});
      const box = el("div", {class: "at-placed", tabindex: "0", role: "application", "aria-label": "Object: arrow keys move it, plus and minus scale it"}, object, corner);
      const stage = el("div", {class: "at-place", style: `aspect-ratio:${value.width}/${value.height};width:min(100%, ${Math.round(62 * value.width / value.height)}vh)`}, el("img", {src: value.painting, alt: "painting", draggable: "false"}), box);
      const draw = () => {
        const height = at.scale * at.ratio * (value.width / value.height);
        box.style.cssText = `left:${100 * (at.x - at.scale / 2)}%;top:${100 * (at.y - height / 2)}%;width:${100 * at.scale}%;height:${100 * height}%`;
      };
      const later = calm(() => send({...at}), 120);
      const change = (next) => {
        Object.assign(at, next);
        at.x = Math.max(0, Math.min(1, at.x));
        at.y = Math.max(0, Math.min(1, at.y));
        at.scale = Math.max(0.02, Math.min(2, at.scale));
        draw();
        later();
      };
      let last = null, sizing = false;
      box.addEventListener("pointerdown", (event) => { last = position(event, stage); sizing = event.target === corner; box.setPointerCapture(event.pointerId); box.focus(); event.preventDefault(); });
      box.addEventListener("pointermove", (event) => {
        if (!last) return;
        const now = position(event, stage);
        if (sizing) change({scale: 2 * Math.abs(now.x / now.width - at.x)});
        else change({x: at.x + (now.x - last.x) / now.width, y: at.y + (now.y - last.y) / now.height});
        last = now;
      });
      for (const kind of ["pointerup", "pointercancel"]) box.addEventListener(kind, () => { last = null; });
      box.addEventListener("wheel", (event) => { if (box.matches(":focus")) { event.preventDefault(); change({scale: at.scale * Math.exp(-event.deltaY / 1000)}); } }, {passive: false});
      box.addEventListener("keydown", (event) => {
        const step = event.shiftKey ? 0.05 : 0.01;
        const keys = {ArrowLeft: {x: at.x - step}, ArrowRight: {x: at.x + step}, ArrowUp: {y: at.y - step}, ArrowDown: {y: at.y + step}, "+": {scale: at.scale * 1.05}, "=": {scale: at.scale * 1.05}, "-": {scale: at.scale / 1.05}};
        if (keys[event.key]) { change(keys[event.key]); event.preventDefault(); }
      });
      draw();
      root.replaceChildren(stage);
    });
  };
})();
