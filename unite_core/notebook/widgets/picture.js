// One image element whose source changes once the next picture is decoded: nothing jumps.
function render({ model, el }) {
  const image = document.createElement("img");
  const status = document.createElement("p");
  status.setAttribute("role", "status"); // changes are spoken
  el.append(image, status);
  el.classList.add("unite-picture");
  let address = "";
  let drawn = 0;

  // JupyterLab takes arrows and letters for its cells; here they belong to the controls.
  const attached = new ResizeObserver(() => {
    const controls = el.closest(".widget-vbox")?.querySelectorAll("select, input, button");
    for (const control of controls ?? []) control.dataset.lmSuppressShortcuts = "true";
  });
  attached.observe(el);

  async function draw() {
    const number = ++drawn;
    const next = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    const loading = new Image();
    loading.src = next;
    await loading.decode();
    if (number < drawn) return URL.revokeObjectURL(next); // overtaken by the next one
    Object.assign(image, {
      src: next, alt: model.get("alt"), width: model.get("width"), height: model.get("height"),
    });
    URL.revokeObjectURL(address);
    address = next;
  }
  function say() {
    status.textContent = model.get("note") || model.get("alt");
    status.classList.toggle("unite-spoken-only", !model.get("note"));
  }
  model.on("change:png", draw);
  model.on("change:alt change:note", say);
  if (model.get("png").byteLength) draw();
  say();
  return () => {
    attached.disconnect();
    model.off("change:png", draw);
    model.off("change:alt change:note", say);
    URL.revokeObjectURL(address);
  };
}
export default { render };
