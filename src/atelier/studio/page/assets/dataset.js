// Pictures to train on, each with its caption and what is wrong with it. Value: {items: [{name, url, caption,
// detail, marks}], tags: [[tag, count]]}. Sends the same with {action: "caption", name, text} or
// {action: "remove", name}.
(() => {
  const {el, component, button} = window.atelier;

  window.atelier.dataset = (element, trigger, props, upload, watch) => {
    let wanted = "";
    component(element, trigger, props, watch, (root, value, send) => {
      const items = value?.items || [], tags = value?.tags || [];
      if (!items.length) {
        root.replaceChildren(el("div", {class: "at-empty"}, el("p", {}, props.empty || "")));
        return;
      }
      const has = (item) => !wanted || item.caption.toLowerCase().split(/[,\n]/).some((one) => one.trim() === wanted) || item.marks.includes(wanted);
      const caption = (item) => {
        const box = el("textarea", {rows: 3, "aria-label": `Caption of ${item.name}`, placeholder: "no caption", spellcheck: "false",
          onchange: () => { item.caption = box.value; send({items, tags, action: "caption", name: item.name, text: box.value}); }});
        box.value = item.caption;
        return box;
      };
      const row = (item) => el("figure", {class: "at-sample-row", "data-name": item.name},
        el("img", {src: item.url, alt: item.name, loading: "lazy"}),
        el("div", {}, el("div", {class: "at-row-head"}, el("strong", {class: "at-name", title: item.name}, item.name), el("span", {class: "at-help"}, item.detail),
          button("×", `Take ${item.name} out`, () => send({items, tags, action: "remove", name: item.name}), {class: "at-button at-small"})),
          caption(item), item.marks.length ? el("div", {class: "at-marks"}, ...item.marks.map((mark) => el("span", {}, mark))) : ""));
      const chosen = (word) => { wanted = wanted === word ? "" : word; draw(); };
      const chip = (word, count, kind = "") => el("button", {type: "button", class: `at-chip ${kind}`, "aria-pressed": String(wanted === word), onclick: () => chosen(word)}, word, el("span", {class: "at-help"}, ` ${count}`));
      const draw = () => {
        const counts = {};
        items.forEach((item) => item.marks.forEach((mark) => { counts[mark] = (counts[mark] || 0) + 1; }));
        const shown = items.filter(has);
        root.replaceChildren(
          el("div", {class: "at-chips", role: "group", "aria-label": "Tags and remarks"},
            ...Object.entries(counts).map(([mark, count]) => chip(mark, count, "at-bad-chip")), ...tags.map(([tag, count]) => chip(tag, count))),
          el("p", {class: "at-help", role: "status"}, wanted ? `${shown.length} of ${items.length} pictures` : `${items.length} pictures`),
          el("div", {class: "at-rows"}, ...shown.map(row)));
      };
      if (wanted && !items.some(has)) wanted = "";
      draw();
    });
  };
})();
