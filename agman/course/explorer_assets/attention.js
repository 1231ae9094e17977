// One garment, all its attributes: where a model looks, on the level or part that is chosen.
const build = (form, data) => {
  const models = data.models.map((model) => ({
    ...model, layers: model.layers.map((layer) => ({ ...layer, maps: unpack(layer.maps) })),
  }));
  let garment = 0, model = 0, layer = 0;

  const models_ = picker("Model", models.map(({ name }) => name), (number) => {
    const before = models[model].layers[layer].name;
    model = number;
    const names = models[model].layers.map(({ name }) => name);
    layers_.fill(names);
    layer = Math.max(0, names.indexOf(before));
    layers_.select.selectedIndex = layer;
    show();
  });
  const layers_ = picker("Map", models[0].layers.map(({ name }) => name), (number) => {
    layer = number;
    show();
  });
  const strength = el("input", { type: "range", min: 0, max: 100, step: 5, value: 60,
    oninput: () => tiles.querySelectorAll("canvas").forEach((canvas) => {
      canvas.style.opacity = strength.value / 100;
    }) });
  const framing = el("input", { type: "checkbox", checked: true, onchange: () => show() });
  const about = el("p", { role: "status", class: "soft" });
  const tiles = el("div", { class: "tiles" });
  const alternative = el("div", {});

  const show = () => {
    const { picture: [src, name], asked } = data.garments[garment];
    const { maps, shared, says, about: text } = models[model].layers[layer];
    const n = data.attributes.length;
    tiles.replaceChildren(...data.attributes.map((attribute, a) => {
      const { value, region } = asked[a];
      const said = says[garment * n + a];
      const number = shared ? garment : garment * n + a;
      const inside = said.inside === null ? "" : `; ${percent(said.inside)} inside`;
      return el("figure", {},
        overlaid(src, `${name} under the map for ${attribute}`, maps, number,
          framing.checked && region, strength.value / 100),
        el("figcaption", {}, el("strong", {}, attribute), `: ${value}`, el("br"),
          el("span", { class: "soft" }, `brightest ${said.place}${inside}`)));
    }));
    about.textContent = `${models[model].name}, ${models[model].layers[layer].name}: ${text}`;
    alternative.replaceChildren(table(
      `${name}: where the map lies. "Even" is what a map without any preference would have inside.`,
      ["Attribute", "Value", "Brightest", "Inside", "Even"],
      data.attributes.map((attribute, a) => {
        const said = says[garment * n + a];
        return [attribute, asked[a].value, said.place, percent(said.inside), percent(asked[a].even)];
      })));
  };

  form.append(
    strip("Garment", data.garments.map(({ picture }) => picture), (number) => {
      garment = number;
      show();
    }),
    el("div", { class: "controls" }, models_.node, layers_.node,
      el("label", {}, el("span", {}, "Strength of the map"), strength),
      data.framed ? el("label", { class: "line" }, framing, el("span", {}, "true regions")) : ""),
    about, tiles,
    el("p", { class: "soft" }, "Colours run from zero (dark) to the brightest place of each map."
      + (data.framed ? " Dashed frame: where the attribute really is; \"inside\" is the share of the map within it." : "")),
    el("details", {}, el("summary", {}, "The maps, as a table"), alternative),
  );
  show();
};
