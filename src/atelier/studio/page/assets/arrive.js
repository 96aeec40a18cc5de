// While Gradio loads, the start page's picture stays in sight, or an empty page of the right colour.
(() => {
  const kept = sessionStorage.getItem("atelier-start");
  sessionStorage.removeItem("atelier-start");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const cover = document.createElement("div");
  cover.className = `at-cover at-start${dark ? " dark" : ""}`;
  cover.style.cssText = `position:fixed;inset:0;z-index:1000;background:${dark ? "#161616" : "#f4f4f2"}`;
  cover.inert = true;
  if (kept && new URLSearchParams(location.search).has("start")) cover.innerHTML = kept;
  document.documentElement.append(cover);
  const began = performance.now();
  const last = cover.querySelector(".at-photo") ? "#paint-photo .at-photo" : "#paint-shelf .at-tile";
  const look = () => {
    if (document.querySelector(`body ${last}`) || performance.now() - began > 30000) requestAnimationFrame(() => cover.remove());
    else setTimeout(look, 50);
  };
  look();
})();
