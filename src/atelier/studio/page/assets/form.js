// A form drawn from fields (see controls.py). Value: {fields, values}; values holds what differs from the
// defaults. Every field has a help sentence and, once changed, a button that resets it. With `basis`, the values
// that Python had seen, what the user has changed since then stays as it is.
(() => {
  const {el, component, calm, picker, uploaded} = window.atelier;
  let count = 0;
  // Chosen files of this window, by the path that they were uploaded to, as addresses to show.
  const SEEN = new Map();

  window.atelier.form = (element, trigger, props, upload, watch) => {
    let fields = [], values = {};
    component(element, trigger, props, watch, (root, value, send) => {
      const mine = values, given = {...(value?.values || {})}, basis = value?.basis;
      fields = value?.fields || fields;
      const newer = basis ? fields.map((field) => field.name).filter((name) => JSON.stringify(mine[name]) !== JSON.stringify(basis[name])) : [];
      for (const name of newer) {
        if (name in mine) given[name] = mine[name];
        else delete given[name];
      }
      values = given;
      const later = calm(() => send({values: {...values}}));
      if (newer.length) later();
      root.classList.add("at-form");
      root.replaceChildren(...fields.map((field) => draw(field, values, later, upload)));
    });
  };

  const draw = (field, values, changed, upload) => {
    const id = `at-field-${++count}`;
    const control = (KINDS[field.kind] || KINDS.text)(field, id, upload, (value) => {
      if (JSON.stringify(value) === JSON.stringify(field.default)) delete values[field.name];
      else values[field.name] = value;
      mark();
      changed();
    });
    const reset = el("button", {
      type: "button", class: "at-reset", title: `Reset ${field.label}`, "aria-label": `Reset ${field.label}`,
      onclick: () => {
        delete values[field.name];
        control.set(field.default);
        mark();
        changed();
      },
    }, "↺");
    const box = el("div", {class: `at-field at-${field.kind}`, "data-name": field.name},
      el("div", {class: "at-field-head"},
        el(control.group ? "span" : "label", {id: `${id}-label`, ...(control.group ? {} : {for: id})}, field.label),
        reset, control.aside || null),
      control.body,
      field.help ? el("p", {class: "at-help", id: `${id}-help`}, field.help) : null);
    const mark = () => box.classList.toggle("changed", field.name in values);
    control.set(field.name in values ? values[field.name] : field.default);
    mark();
    return box;
  };

  const number = (field, text) => (text === "" ? null : field.whole ? Math.round(Number(text)) : Number(text));

  // What an option is called: as Python says, or its value.
  const named = (field, i) => field.names?.[i] ?? String(field.options[i]).replaceAll("_", " ");

  const KINDS = {
    range: (field, id, _, changed) => {
      const limits = {min: field.minimum, max: field.maximum, step: field.step};
      const slider = el("input", {type: "range", id, ...limits, "aria-describedby": `${id}-help`});
      const box = el("input", {type: "number", ...limits, step: field.whole ? 1 : "any", "aria-label": `${field.label}, number`});
      const fill = () => slider.style.setProperty("--part", `${(100 * (slider.value - slider.min)) / (slider.max - slider.min)}%`);
      slider.addEventListener("input", () => { box.value = slider.value; fill(); changed(number(field, slider.value)); });
      box.addEventListener("change", () => { slider.value = box.value; fill(); changed(number(field, box.value)); });
      return {body: slider, aside: box, set: (value) => { slider.value = box.value = value ?? field.minimum; fill(); }};
    },
    number: (field, id, _, changed) => {
      const box = el("input", {
        type: "number", id, min: field.minimum, max: field.maximum, step: field.step, "aria-describedby": `${id}-help`,
        placeholder: field.optional ? "auto" : "", onchange: () => changed(number(field, box.value)),
      });
      return {body: "", aside: box, set: (value) => { box.value = value ?? ""; }};
    },
    switch: (field, id, _, changed) => {
      const box = el("input", {type: "checkbox", id, role: "switch", "aria-describedby": `${id}-help`, onchange: () => changed(box.checked)});
      return {body: "", aside: box, set: (value) => { box.checked = !!value; }};
    },
    row: (field, id, _, changed) => {
      const inputs = field.options.map((option) => el("input", {type: "radio", name: id, value: option, onchange: () => changed(option)}));
      const labels = field.options.map((option, i) => el("label", {}, inputs[i], el("span", {}, named(field, i))));
      return {
        group: true, body: el("div", {class: "at-segments", role: "radiogroup", "aria-labelledby": `${id}-label`}, ...labels),
        set: (value) => inputs.forEach((input, i) => { input.checked = field.options[i] === value; }),
      };
    },
    list: (field, id, _, changed) => {
      const box = el("select", {id, onchange: () => changed(field.options[box.selectedIndex])},
        ...field.options.map((option, i) => el("option", {}, named(field, i))));
      box.disabled = field.options.every((option) => option === "");
      return {body: box, set: (value) => { box.selectedIndex = Math.max(0, field.options.indexOf(value)); }};
    },
    text: (field, id, _, changed) => {
      const offers = field.suggestions?.length ? el("datalist", {id: `${id}-list`}, ...field.suggestions.map((one) => el("option", {value: one}))) : null;
      const box = el("input", {
        type: "text", id, list: offers ? `${id}-list` : null, spellcheck: "false", autocomplete: "off",
        placeholder: field.several ? "values with commas between" : "", onchange: () => changed(box.value),
      });
      const parts = () => box.value.split(",").map((one) => one.trim()).filter(Boolean);
      const pick = (one) => {
        const now = parts();
        box.value = !field.several ? one : (now.includes(one) ? now.filter((other) => other !== one) : [...now, one]).join(", ");
        mark();
        changed(box.value);
      };
      const chips = field.offers?.length ? el("div", {class: "at-chips"}, el("span", {class: "at-help"}, field.offered),
        ...field.offers.map((one) => el("button", {type: "button", class: "at-chip", "data-word": one, onclick: () => pick(one)}, one.replace(".safetensors", "")))) : null;
      const mark = () => chips?.querySelectorAll(".at-chip").forEach((chip) => chip.setAttribute("aria-pressed", String(parts().includes(chip.dataset.word))));
      box.addEventListener("change", mark);
      return {body: el("div", {}, ...[box, offers, chips].filter(Boolean)), set: (value) => { box.value = value ?? ""; mark(); }};
    },
    lines: (field, id, _, changed) => {
      const box = el("textarea", {id, rows: 3, "aria-describedby": `${id}-help`, onchange: () => changed(box.value)});
      return {body: box, set: (value) => { box.value = value ?? ""; }};
    },
    file: (field, id, upload, changed) => {
      const words = ["", ...(field.words || [])];
      const told = el("span", {class: "at-help"});
      const area = picker({label: "Choose a file", accept: "*", multiple: false}, async (files) => {
        const [done] = await uploaded(upload, files);
        told.textContent = done.name;
        changed(done);
      });
      const box = el("select", {id, onchange: () => changed(box.value)}, ...words.map((word) => el("option", {value: word}, word || "none")));
      return {
        body: el("div", {class: "at-file"}, words.length > 1 ? box : "", area, told),
        set: (value) => { box.value = typeof value === "string" ? value : ""; told.textContent = value?.name || ""; },
      };
    },
    pictures: (field, id, upload, changed) => {
      const told = el("p", {class: "at-count", role: "status"}), strip = el("div", {class: "at-strip", "aria-hidden": "true"});
      let kept = [];
      const tell = () => {
        told.textContent = kept.length ? `${kept.length} ${kept.length === 1 ? "file" : "files"}` : "";
        const seen = kept.map((one) => SEEN.get(one.path)).filter(Boolean).slice(0, 12);
        strip.replaceChildren(...seen.map((src) => el("img", {src, alt: "", onerror: ({target}) => target.remove()})));
      };
      const sets = field.sets?.length ? el("select", {"aria-label": `${field.label}, a set`, onchange: () => { kept = []; tell(); changed(sets.value ? {set: sets.value} : null); }},
        el("option", {value: ""}, "or a set of pictures …"), ...field.sets.map((one) => el("option", {value: one.id}, `${one.name}, ${one.count} pictures`))) : null;
      const accept = field.accept || "image/*,.tif,.tiff,.heic,.txt";
      const take = async (files) => {
        if (!files.length) { told.textContent = "There is no picture in that folder."; return; }
        const done = await uploaded(upload, files, (now, all) => { told.textContent = `Uploading ${now + 1} of ${all} …`; });
        done.forEach(({path}, i) => { if (!files[i].name.endsWith(".txt")) SEEN.set(path, URL.createObjectURL(files[i])); });
        kept = field.most === 1 ? done : [...kept, ...done];
        tell();
        if (sets) sets.value = "";
        changed([...kept]);
      };
      const area = picker({label: field.hint || "Drop or choose pictures", multiple: field.most !== 1, accept}, take);
      const folder = field.folder ? picker({label: "Choose a folder", multiple: true, accept, folder: true}, take) : null;
      const set = (value) => { kept = Array.isArray(value) ? [...value] : []; if (sets) sets.value = value?.set || ""; tell(); };
      return {group: true, body: el("div", {class: "at-pictures"}, ...[area, folder, strip, told, sets].filter(Boolean)), set};
    },
    named_sets: (field, id, upload, changed) => {
      const rows = el("div", {class: "at-form"});
      let kept = [];
      const row = (set) => {
        const told = el("span", {class: "at-count"}, set.files.length ? `${set.files.length} files` : "");
        const name = el("input", {type: "text", placeholder: "name of this kind", "aria-label": "Name of this kind", onchange: () => { set.name = name.value; changed([...kept]); }});
        name.value = set.name;
        const area = picker({label: "Drop or choose its pictures", multiple: true}, async (files) => {
          set.files = [...set.files, ...(await uploaded(upload, files))];
          told.textContent = `${set.files.length} files`;
          changed([...kept]);
        });
        return el("div", {}, name, area, told);
      };
      const draw = () => rows.replaceChildren(...kept.map(row), el("button", {type: "button", class: "at-button", onclick: () => { kept.push({name: "", files: []}); draw(); }}, "+ Kind"));
      return {group: true, body: rows, set: (value) => { kept = value?.length ? [...value] : [{name: "", files: []}, {name: "", files: []}]; draw(); }};
    },
    artifact: (field, id, _, changed) => {
      const box = el("select", {id, onchange: () => changed(box.value)},
        ...["", ...field.writes].map((one) => el("option", {value: one}, one ? `also ${one}` : "none")));
      return {body: box, set: (value) => { box.value = value || ""; }};
    },
  };
})();
