// A native range: keys, label and spoken value come with it. What is spoken is what is shown.
function render({ model, el }) {
  const words = model.get("words");
  const id = `slider-${Math.random().toString(36).slice(2)}`;
  const label = document.createElement("label");
  label.htmlFor = id;
  label.textContent = model.get("label");
  const range = document.createElement("input");
  Object.assign(range, { id, type: "range", min: 0, max: words.length - 1, step: 1 });
  range.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes its arrows
  const shown = document.createElement("span");
  shown.ariaHidden = "true"; // the range speaks it
  shown.style.minWidth = `${Math.max(...words.map((word) => word.length))}ch`;
  el.append(label, range, shown);
  el.classList.add("unite-slider");

  function say() {
    const word = words[range.value];
    range.setAttribute("aria-valuetext", word);
    shown.textContent = word;
  }
  function follow() {
    range.value = model.get("index");
    say();
  }
  range.addEventListener("input", say);
  range.addEventListener("change", () => {
    model.set("index", Number(range.value));
    model.save_changes();
  });
  model.on("change:index", follow);
  follow();
  return () => model.off("change:index", follow);
}
export default { render };
