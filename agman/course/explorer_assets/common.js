// What all explorers share. Data becomes text and attributes only, never markup.
const el = (tag, attributes = {}, ...children) => {
  const svg = tag === "svg" || tag === "path";
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

const three = (number) => (number === null ? "none" : number.toFixed(3));
const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)}\u00a0%`);

// The cells of a table that hold one number.
const NUMBER = /^[\d.,/]+(\u00a0%)?$|^–$/;

// A labelled select; `options` are texts, `chosen` is called with the number of the new one.
const picker = (label, options, chosen) => {
  const select = el("select", { onchange: () => chosen(select.selectedIndex) });
  const fill = (texts) => select.replaceChildren(...texts.map((text) => el("option", {}, text)));
  fill(options);
  return { node: el("label", {}, el("span", {}, label), select), select, fill };
};

// Radio buttons that are pictures: `pictures` are [address, name].
const strip = (legend, pictures, chosen) => {
  const labels = pictures.map(([src, name], i) =>
    el("label", { title: name },
      el("input", { type: "radio", name: "garment", checked: i === 0, onchange: () => chosen(i) }),
      el("img", { src, alt: name })));
  return el("fieldset", {}, el("legend", {}, legend), el("div", { class: "strip" }, ...labels));
};

const table = (caption, head, rows) =>
  el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([first, ...cells]) =>
      el("tr", {}, el("th", { scope: "row" }, first), ...cells.map((cell) => el("td", { class: NUMBER.test(cell) && "is-number" }, cell))))));

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Nine colours of matplotlib's magma, dark to bright.
const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122],
  [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]];
const heat = (value) => {
  const place = (value / 255) * (MAGMA.length - 1);
  const low = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[low].map((start, i) => start + (place - low) * (MAGMA[low + 1][i] - start));
};

// A picture under one of `maps`, {height, width, values}, with the region it should look at.
const overlaid = (src, alt, maps, number, region, strength) => {
  const canvas = el("canvas", { width: maps.width, height: maps.height, "aria-hidden": "true" });
  canvas.style.opacity = strength;
  const size = maps.width * maps.height;
  const image = new ImageData(maps.width, maps.height);
  maps.values.subarray(number * size, (number + 1) * size)
    .forEach((value, i) => image.data.set([...heat(value), 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return el("div", { class: "picture" }, el("img", { src, alt }), canvas, ...framed(region));
};
const framed = (region) => {
  if (!region) return [];
  const frame = el("div", { class: "region", "aria-hidden": "true" });
  ["left", "top", "width", "height"].forEach((side, i) => {
    frame.style[side] = `${100 * region[i]}%`;
  });
  return [frame];
};
const unpack = (maps) => maps && { ...maps, values: bytes(maps.values) };

// Light or dark, as the page around is: the book, JupyterLab, Colab, VS Code, else the system.
const followTheme = (root) => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const html = document.documentElement;
  const update = () => {
    const lab = document.body.dataset.jpThemeLight;
    const code = document.body.dataset.vscodeThemeKind;
    const told = html.dataset.theme || html.getAttribute("theme")
      || (lab && (lab === "true" ? "light" : "dark"))
      || (code && (code.includes("light") ? "light" : "dark"));
    root.dataset.theme = told ? (told === "dark" ? "dark" : "light")
      : (system.matches ? "dark" : "light");
  };
  const observer = new MutationObserver(update);
  observer.observe(html, { attributes: true });
  observer.observe(document.body, { attributes: true });
  system.addEventListener("change", update);
  update();
};

// The same cell may be shown twice on a page: take the first copy that does not run yet.
const start = (id, title, build, data) => {
  const root = [...document.querySelectorAll(`[id="${id}"]`)].find((one) => !one.dataset.theme);
  if (!root) return;
  followTheme(root);
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", title);
  root.querySelector(".wait").remove();
  const form = el("form", { onsubmit: (event) => event.preventDefault() });
  root.append(el("p", { class: "title" }, title), form);
  build(form, data);
};
