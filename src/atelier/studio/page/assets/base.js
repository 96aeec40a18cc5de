// What the page's own components share. Each is a function that Gradio calls with its element once; values
// come from Python through `watch`, and go back through `send`.
window.atelier = {};
(() => {
  // A DOM element: el("p", {class: "note", onclick: f}, "text", child).
  const el = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  // A component's tools: its root, the value from Python, and how to send one back.
  const component = (element, trigger, props, watch, draw) => {
    const root = element.querySelector(".at") || element;
    const send = (value, event = "input") => {
      props.value = value;
      trigger(event);
    };
    watch("value", () => draw(root, props.value, send));
    draw(root, props.value, send);
  };

  // Call `later` only when nothing new came for a moment, or when the user turns to something else.
  const pending = new Set();
  const calm = (later, wait = 180) => {
    let timer, last;
    const now = () => { clearTimeout(timer); pending.delete(now); later(...last); };
    return (...values) => {
      clearTimeout(timer);
      last = values;
      pending.add(now);
      timer = setTimeout(now, wait);
    };
  };
  const flush = () => [...pending].forEach((now) => now());
  document.addEventListener("pointerdown", flush, true);
  document.addEventListener("focusout", flush, true);

  // Whether a file of a folder is of the wanted kinds: the rest of a folder is passed over without a word.
  const fits = (file, accept) => !file.name.startsWith(".") && accept.split(",").some((kind) =>
    kind === "*" || (kind.endsWith("/*") ? file.type.startsWith(kind.slice(0, -1)) : file.name.toLowerCase().endsWith(kind)));
  const ordered = (files) => [...files].sort((a, b) => a.name.localeCompare(b.name, undefined, {numeric: true}));

  // The files that were dropped, and the wanted ones in folders that were dropped.
  const dropped = async (data, accept) => {
    const entries = [...(data.items || [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean), files = [...data.files];
    if (!entries.some((entry) => entry.isDirectory)) return files;
    const found = [];
    const walk = async (entry) => {
      if (entry.isFile) found.push(await new Promise((done, failed) => entry.file(done, failed)));
      if (!entry.isDirectory) return;
      const reader = entry.createReader();
      for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length;)
        for (const one of some) await walk(one);
    };
    for (const entry of entries) await walk(entry);
    return ordered(found.filter((file) => fits(file, accept)));
  };

  // An area that takes files by drop, choice or paste. `take` gets a list of File objects. With `folder`, all
  // pictures of a folder are chosen at once.
  const picker = ({label, hint = "", accept = "image/*,.tif,.tiff,.heic", multiple = false, paste = false, folder = false}, take) => {
    const input = el("input", {
      type: "file", accept, multiple, webkitdirectory: folder, "aria-label": label, class: "at-hidden",
      onchange: () => { take(folder ? ordered([...input.files].filter((file) => fits(file, accept))) : [...input.files]); input.value = ""; },
    });
    const area = el("label", {class: "at-drop", "data-paste": paste},
      input, el("span", {class: "at-drop-label"}, label), hint ? el("span", {class: "at-help"}, hint) : null);
    for (const kind of ["dragenter", "dragover"])
      area.addEventListener(kind, (event) => { event.preventDefault(); area.classList.add("over"); });
    for (const kind of ["dragleave", "drop"]) area.addEventListener(kind, () => area.classList.remove("over"));
    area.addEventListener("drop", async (event) => {
      event.preventDefault();
      const files = await dropped(event.dataTransfer, accept);
      if (files.length) take(files.slice(0, multiple ? undefined : 1));
    });
    area.take = take;
    return area;
  };

  // A pasted picture goes to the visible area that takes pastes.
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])].filter((file) => file.type.startsWith("image/"));
    const area = [...document.querySelectorAll(".at-drop[data-paste]")].find((one) => one.offsetParent);
    if (files.length && area) {
      event.preventDefault();
      area.take(files.slice(0, 1));
    }
  });

  // Upload files one after the other; `told` hears how many are there.
  const uploaded = async (upload, files, told = () => {}) => {
    const done = [];
    for (const file of files) {
      told(done.length, files.length);
      const {path} = await upload(file);
      done.push({path, name: file.name});
    }
    return done;
  };

  // A button with `data-save`, a list of {url, name}, writes these files into a folder that the user chooses, under
  // other names where there are such files. Browsers that cannot do that do not show it.
  if (!("showDirectoryPicker" in window)) document.head.append(el("style", {id: "at-no-folders"}, ".at-save { display: none !important; }"));
  document.addEventListener("click", async ({target}) => {
    const saver = target.closest?.("[data-save]");
    if (!saver) return;
    const files = JSON.parse(saver.dataset.save);
    try {
      const folder = await window.showDirectoryPicker({mode: "readwrite"});
      for (const [index, {url, name}] of files.entries()) {
        saver.textContent = `Saving ${index + 1} of ${files.length} …`;
        const answer = await fetch(url);
        if (!answer.ok) throw new Error((await answer.json()).error);
        const file = await (await folder.getFileHandle(await free(folder, name), {create: true})).createWritable();
        await file.write(await answer.blob());
        await file.close();
      }
      saver.textContent = `Saved: ${files.length} in ${folder.name || "the folder"}`;
    } catch (error) {
      if (error.name !== "AbortError") saver.textContent = `Not saved: ${error.message}`;
    }
  });
  const free = async (folder, name) => {
    const [, stem, suffix] = name.match(/^(.*?)(\.[^.]*)?$/);
    for (let number = 1; ; number += 1) {
      const tried = number === 1 ? name : `${stem}-${number}${suffix || ""}`;
      try { await folder.getFileHandle(tried); } catch (error) {
        if (error.name === "NotFoundError") return tried;
        throw error;
      }
    }
  };

  // Where a pointer is in an element, from its top left corner in CSS pixels.
  const position = (event, element) => {
    const box = element.getBoundingClientRect();
    return {x: event.clientX - box.left, y: event.clientY - box.top, width: box.width, height: box.height};
  };

  const button = (text, title, onclick, more = {}) =>
    el("button", {type: "button", class: "at-button", title, "aria-label": title, onclick, ...more}, text);

  Object.assign(window.atelier, {el, component, calm, picker, uploaded, position, button});
})();
