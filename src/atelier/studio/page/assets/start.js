// The start page: a photo and styles are chosen here while the full page is made, which takes them over.
(() => {
  const {el} = window.atelier;
  const facts = window.atelierStart;
  const chosen = {photo: null, styles: [{id: "style:nocturne", weight: 1}]};
  const note = document.getElementById("start-note");
  const thumbnail = (id, side) => `/api/pictures/${id}/thumbnail?side=${side}`;
  let busy = 0;

  const answer = async (path, options) => {
    const response = await fetch(path, options);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  };

  // A component without Gradio: `took` gets what the user sends, and answers with the value to show.
  const place = (kind, id, value, more, took) => {
    const props = {value, ...more};
    let redraw = () => {};
    const upload = async (file) => {
      const form = new FormData();
      form.append("file", file);
      busy += 1;
      try { return {path: (await answer("/api/pictures", {method: "POST", body: form})).id}; } finally { busy -= 1; }
    };
    const set = (next) => { props.value = next; redraw(); };
    const trigger = () => { const next = took(props.value); if (next !== undefined) set(next); };
    window.atelier[kind](document.getElementById(id), trigger, props, upload, (_, call) => { redraw = call; });
    return set;
  };

  const show = place("viewer", "start-viewer", null, {empty: "Choose a photo and a style. The whole studio stands in some seconds, and takes them over."}, () => {});

  place("photo", "start-photo", null, {
    prompt: "Your photo", paste: true, samples: facts.samples.map((one) => ({...one, url: thumbnail(one.id, 160)})),
  }, (value) => {
    chosen.photo = value?.path || value?.sample || null;
    show(null);
    if (!chosen.photo) return value?.error ? value : null;
    const id = chosen.photo, url = thumbnail(id, 1600), picture = new Image();
    busy += 1;
    picture.onload = () => {
      busy -= 1;
      if (chosen.photo === id) show({before: url, width: picture.naturalWidth, height: picture.naturalHeight});
    };
    picture.onerror = () => { busy -= 1; };
    picture.src = url;
    return {id, url, name: value.name || id.split(":")[1], note: ""};
  });

  const items = facts.styles.map((one) => ({...one, url: thumbnail(one.id, 160)}));
  place("shelf", "start-shelf", {items, chosen: chosen.styles}, {}, (value) => {
    const added = (value.added || []).map(({path, name}) => ({id: path, name, title: name, url: thumbnail(path, 160)}));
    items.unshift(...added);
    chosen.styles = added.length ? added.map(({id}) => ({id, weight: 1})) : value.chosen;
    return added.length ? {items, chosen: chosen.styles} : undefined;
  });

  // The page does not go away under an open dialog for files.
  let asking = false;
  for (const [event, open] of [["click", true], ["change", false], ["cancel", false]])
    document.addEventListener(event, ({target}) => { if (target.type === "file") asking = open; }, true);

  const tell = (text, kind = "at-help") => note.replaceChildren(el("p", {class: kind}, text));
  const look = async () => {
    let found = {page: "gone"};
    try { found = await answer("/api/health"); } catch (error) { /* told below */ }
    if (found.page === "ready" && !busy && !asking) {
      sessionStorage.setItem("atelier-start", document.body.innerHTML);
      location.replace(`/?start=${encodeURIComponent(JSON.stringify(chosen))}`);
      return;
    }
    if (found.page === "gone") tell("The studio does not answer. Start it again: atelier studio", "at-error");
    if (found.page === "failed") {
      const {error} = await (await fetch("/page")).json();
      tell(error, "at-error");
      return;
    }
    setTimeout(look, 300);
  };
  const wait = el("div", {class: "at-progress"}, el("progress", {"aria-label": "opening"}), el("span", {}, "opening the studio"));
  note.replaceChildren(wait);
  look();
})();
