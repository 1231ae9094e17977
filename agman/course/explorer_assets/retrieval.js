// A query garment and an attribute; the rankings of two models side by side.
const build = (form, data) => {
  const maps = data.maps.map(unpack);
  let garment = 0, row = 0;
  const shown = data.models.slice(0, 2).map((_, i) => i);

  const attribute = picker("Attribute, and its value here", [], (number) => { row = number; show(); });
  const status = el("p", { role: "status" });
  const alternative = el("div", {});

  const panels = shown.map((_, side) => {
    const model = picker(`Model ${side + 1}`, data.models, (number) => {
      shown[side] = number;
      show();
    });
    model.select.selectedIndex = shown[side];
    const content = el("div", {});
    const node = el("section", { "aria-label": `Ranking ${side + 1}` }, model.node, content);
    return { node, content };
  });

  const words = (asked) => `${data.attributes[asked.attribute]}: ${value(asked, asked.value)}`;
  const marked = (right) => (right ? "✓ right" : "✗ wrong");
  const score = ([, , number]) => number.toFixed(3);
  const value = (asked, number) => data.values[asked.attribute][number];

  const pictured = (query, asked, number) => {
    const [src, name] = query.picture;
    if (!maps[number]) {
      return el("div", { class: "picture" }, el("img", { src, alt: name }));
    }
    return overlaid(src, `${name}, under the attention map`, maps[number], asked.map,
      asked.region, 0.6);
  };

  const panel = (query, asked, side) => {
    const number = shown[side], answer = asked.answers[number];
    const right = answer.results.filter((one) => one[3]).length;
    const results = answer.results.map((one, i) => {
      const [src, name] = data.pictures[one[0]];
      return el("li", { class: one[3] ? "is-right" : "is-wrong" }, el("img", { src, alt: name, title: name }),
        el("span", { class: one[3] ? "right" : "wrong" }, `${i + 1} ${marked(one[3])}`),
        el("span", {}, value(asked, one[1])), el("span", { class: "soft" }, score(one)));
    });
    return [
      el("div", { class: "query" }, el("figure", {}, pictured(query, asked, number)),
        el("div", {}, "AP ", el("span", { class: "number", "data-number": "ap" }, three(answer.ap)),
          el("br"), el("span", { class: "soft" },
            `${right} of the first ${results.length} are right. ${answer.looks}`))),
      el("ol", { class: "results" }, ...results),
    ];
  };

  const listed = (asked) => {
    const heads = shown.map((number) => data.models[number]);
    const longest = Math.max(...shown.map((number) => asked.answers[number].results.length));
    const cell = (one) => (one ? `${value(asked, one[1])}, ${marked(one[3])}, ${score(one)}` : "");
    const rows = Array.from({ length: longest }, (_, i) =>
      [`${i + 1}`, ...shown.map((number) => cell(asked.answers[number].results[i]))]);
    return table(`What each model finds for ${words(asked)}; the number is the similarity.`,
      ["Rank", ...heads], rows);
  };

  const show = () => {
    const query = data.queries[garment], asked = query.rows[row];
    panels.forEach(({ content }, side) => content.replaceChildren(...panel(query, asked, side)));
    alternative.replaceChildren(listed(asked));
    const aps = shown.map((number) => `${data.models[number]} ${three(asked.answers[number].ap)}`);
    const chance = asked.chance === null ? "" : ` A random ranking gets ${three(asked.chance)}.`;
    status.textContent = `Query ${query.picture[1]}, ${words(asked)}. `
      + `${asked.relevant} of ${asked.items} gallery garments are relevant. `
      + `AP: ${aps.join("; ")}.${chance}`;
  };

  const choose = (number) => {
    const before = data.queries[garment].rows[row].attribute;
    garment = number;
    const rows = data.queries[garment].rows;
    attribute.fill(rows.map((asked) => words(asked)));
    row = Math.max(0, rows.findIndex((asked) => asked.attribute === before));
    attribute.select.selectedIndex = row;
    show();
  };

  form.append(
    strip("Query garment", data.queries.map((query) => query.picture), choose),
    el("div", { class: "controls" }, attribute.node), status,
    el("div", { class: "side-by-side" }, ...panels.map(({ node }) => node)),
    el("p", { class: "soft" }, data.framed
      ? "Bright: much attention. Dashed frame: where the attribute really is."
      : "Bright: much attention."),
    el("details", {}, el("summary", {}, "The rankings, as a table"), alternative),
  );
  choose(0);
};
