// Garments in a plane, near each other where the model takes their value for alike.
const COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#FFFFFF", "#F0E442"];
const SHAPES = [
  "M8 3a5 5 0 1 0 .01 0z", "M3.5 3.5h9v9h-9z", "M8 2l6 11H2z", "M8 2l6 6-6 6-6-6z",
  "M8 14L2 3h12z", "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
  "M4 2l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4z",
  "M8 1l2 5h5l-4 3.2L12.5 15 8 11.5 3.5 15 5 9.2 1 6h5z",
];
const marker = (value) => el("svg", { class: "marker", viewBox: "0 0 16 16", "aria-hidden": "true" },
  el("path", { d: SHAPES[(value + Math.floor(value / 8)) % 8], fill: COLORS[value % 8] }));

const build = (form, data) => {
  let asked = 0, points = [];
  const attribute = picker("Attribute", data.attributes.map(({ name }) => name), (number) => {
    asked = number;
    show();
  });
  const about = el("p", { role: "status", class: "soft" });
  const plot = el("div", { class: "plot", role: "group" });
  const shown = el("div", { class: "shown" });
  const alternative = el("div", {});

  const light = (number, focus) => {
    const { values, points: places } = data.attributes[asked];
    points.forEach((point, i) => {
      point.tabIndex = i === number ? 0 : -1;
      point.classList.toggle("is-shown", i === number);
    });
    if (focus) points[number].focus();
    const [picture, value] = places[number];
    const [src, name] = data.pictures[picture];
    shown.replaceChildren(el("img", { src, alt: name }),
      el("div", {}, el("strong", { "data-shown": "value" }, values[value].name), el("br"),
        el("span", { "data-shown": "name" }, name)));
  };

  // The nearest point within 45 degrees of the arrow's direction.
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const walk = (event, from) => {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const places = data.attributes[asked].points;
    const [, , x, y] = places[from];
    let best = -1, nearest = Infinity;
    places.forEach(([, , u, v], i) => {
      const along = (u - x) * arrow[0] + (v - y) * arrow[1];
      const across = Math.abs((u - x) * arrow[1]) + Math.abs((v - y) * arrow[0]);
      const far = along + across;
      if (along > 0 && across <= along && far < nearest) [best, nearest] = [i, far];
    });
    if (best >= 0) light(best, true);
  };

  const show = () => {
    const { name, values, points: places, explained, near } = data.attributes[asked];
    points = places.map(([picture, value, x, y], i) => {
      const point = el("button", { type: "button",
        "aria-label": `${values[value].name}, ${data.pictures[picture][1]}`,
        onpointerenter: () => light(i), onfocus: () => light(i), onclick: () => light(i),
        onkeydown: (event) => walk(event, i) }, marker(value));
      point.style.left = `${4 + 0.092 * x}%`;
      point.style.top = `${4 + 0.092 * y}%`;
      return point;
    });
    plot.replaceChildren(...points);
    plot.setAttribute("aria-label", `Map of ${places.length} garments for ${name}; arrow keys walk from garment to garment`);
    about.textContent = `${places.length} garments. The plane is a principal component analysis: the two directions in which the embeddings for ${name} differ most, with ${percent(explained)} of their variance.`;
    const rows = values.filter(({ garments }) => garments).map((value) => [
      el("span", {}, marker(values.indexOf(value)), value.name),
      `${value.garments}`, percent(value.space), percent(value.plane), percent(value.chance)]);
    alternative.replaceChildren(table(
      `How often the ${near} nearest garments have the same value: in the space of all dimensions, in the plane, and if neighbours were drawn at random.`,
      ["Value", "Count", "Space", "Plane", "Chance"], rows));
    if (points.length) light(0);
  };

  form.append(
    el("div", { class: "controls" }, attribute.node), about,
    el("p", { class: "soft" }, "Point at a garment, or go to the map with Tab and walk with the arrow keys."),
    el("div", { class: "map" }, shown, plot, alternative),
  );
  show();
};
