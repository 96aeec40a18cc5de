// Where pictures come in: one photo (drop, paste, choose, samples), and the shelf of styles.
(() => {
  const {el, component, picker, uploaded, button, calm} = window.atelier;

  // Value: null, {path, name} while Python looks at it, or {id, url, name, note} once it is taken in.
  window.atelier.photo = (element, trigger, props, upload, watch) => {
    component(element, trigger, props, watch, (root, value, send) => {
      const take = async (files) => {
        if (!files.length) return;
        root.classList.add("busy");
        try { send((await uploaded(upload, files))[0]); } catch (error) { send({error: String(error.message || error)}); }
        root.classList.remove("busy");
      };
      const area = picker({label: value?.url ? "Replace" : props.prompt, hint: value?.url ? "" : "Drop, paste or choose a file", paste: props.paste}, take);
      const shown = value?.url
        ? el("figure", {class: "at-photo"},
            el("img", {src: value.url, alt: value.name || "photo"}),
            el("figcaption", {}, el("span", {class: "at-name", title: value.name}, value.name || ""), el("span", {class: "at-help"}, value.note || "")),
            button("×", "Remove", () => send(null), {class: "at-button at-corner"}))
        : null;
      const samples = props.samples?.length && !value?.url
        ? el("div", {class: "at-samples", role: "group", "aria-label": "Sample photos"},
            ...props.samples.map((one) => el("button", {type: "button", title: one.title, "aria-label": one.title, onclick: () => send({sample: one.id})},
              el("img", {src: one.url, alt: "", loading: "lazy"}))))
        : null;
      const wrong = value?.error ? el("p", {class: "at-error", role: "alert"}, value.error) : "";
      root.replaceChildren(...[shown, area, samples, wrong].filter(Boolean));
    });
  };

  // Value: {items: [{id, url, title, own}], chosen: [{id, weight}]}; sends also {added} and {removed}.
  window.atelier.shelf = (element, trigger, props, upload, watch) => {
    let mixing = false;
    component(element, trigger, props, watch, (root, value, send) => {
      const items = value?.items || [];
      const chosen = (value?.chosen || []).filter((one) => items.some((item) => item.id === one.id));
      const tell = (now, extra = {}, event = "input") => send({items, chosen: now, ...extra}, event);
      const pick = (id, add) => {
        const there = chosen.some((one) => one.id === id);
        let now = there ? chosen.filter((one) => one.id !== id) : [...chosen, {id, weight: 1}];
        if (!add) now = [{id, weight: 1}];
        if (!now.length) now = [{id, weight: 1}];
        tell(now);
        draw(now);
      };
      const draw = (now) => {
        const tiles = items.map((item) => {
          const on = now.some((one) => one.id === item.id);
          const tile = el("button", {
            type: "button", class: "at-tile", "aria-pressed": String(on), title: item.title, "aria-label": item.name, "data-id": item.id,
            onclick: (event) => pick(item.id, mixing || event.shiftKey || event.ctrlKey || event.metaKey),
          }, el("img", {src: item.url, alt: "", loading: "lazy"}), el("span", {}, item.name));
          const away = item.own ? button("×", `Remove ${item.name} from the shelf`, () => tell(now, {removed: item.id}), {class: "at-button at-corner"}) : null;
          return el("div", {class: "at-slot"}, tile, away);
        });
        const add = picker({label: "+ Your own", multiple: true}, async (files) => tell(now, {added: await uploaded(upload, files)}));
        add.title = "Add your own style pictures";
        add.querySelector("input").setAttribute("aria-label", "Add your own style pictures");
        const mix = el("label", {class: "at-mix"}, el("input", {type: "checkbox", role: "switch", onchange: (event) => { mixing = event.target.checked; }}), "Mix several");
        mix.firstChild.checked = mixing;
        const weights = now.length > 1 ? now.map((one) => weight(one, items.find((item) => item.id === one.id), () => later(now))) : [];
        const focus = document.activeElement?.dataset?.id;
        root.replaceChildren(el("div", {class: "at-shelf"}, ...tiles), add,
          props.single ? "" : el("div", {class: "at-mixer"}, mix, ...weights));
        if (focus) root.querySelector(`[data-id="${CSS.escape(focus)}"]`)?.focus({preventScroll: true});
      };
      const later = calm((now) => tell(now.map((one) => ({...one}))));
      draw(chosen);
    });
  };

  // Styles in words, one a line. Value: {text, groups: [{name, words}]}; a click on a word adds it or takes it out.
  window.atelier.words = (element, trigger, props, upload, watch) => {
    component(element, trigger, props, watch, (root, value, send) => {
      const groups = value?.groups || [];
      const later = calm(() => send({text: box.value, groups}), 400);
      const box = el("textarea", {rows: 3, "aria-label": "Style in words", placeholder: `such as: ${props.prompt}`, spellcheck: "false", oninput: () => { mark(); later(); }});
      box.value = value?.text || "";
      const said = () => box.value.toLowerCase().split(/[,\n]/).map((one) => one.trim());
      const toggle = (word) => {
        if (said().includes(word.toLowerCase())) {
          const lines = box.value.split("\n").map((line) => line.split(",").filter((one) => one.trim().toLowerCase() !== word.toLowerCase()).join(",").trim());
          box.value = lines.filter(Boolean).join("\n");
        } else {
          const ready = box.value.trim() && !/[\n,]\s*$/.test(box.value);
          box.value += (ready ? ", " : "") + word;
        }
        mark();
        later();
      };
      const chips = groups.map((group) => el("div", {class: "at-chips", role: "group", "aria-label": group.name}, el("span", {class: "at-help"}, group.name),
        ...group.words.map((word) => el("button", {type: "button", class: "at-chip", "data-word": word.toLowerCase(), onclick: () => toggle(word)}, word))));
      root.replaceChildren(box, ...chips);
      const mark = () => {
        const now = said();
        root.querySelectorAll(".at-chip").forEach((chip) => chip.setAttribute("aria-pressed", String(now.includes(chip.dataset.word))));
      };
      mark();
    });
  };

  const weight = (one, item, changed) => {
    const slider = el("input", {
      type: "range", min: 0.1, max: 3, step: 0.1, "aria-label": `Weight of ${item.name}`,
      oninput: () => { one.weight = Number(slider.value); changed(); },
    });
    slider.value = one.weight;
    slider.style.setProperty("--part", `${(100 * (one.weight - 0.1)) / 2.9}%`);
    slider.addEventListener("input", () => slider.style.setProperty("--part", `${(100 * (slider.value - 0.1)) / 2.9}%`));
    return el("div", {class: "at-weight"}, el("img", {src: item.url, alt: ""}), slider);
  };
})();
