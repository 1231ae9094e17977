// Ten results to be put in order. Scores belong to the places, so moving a result moves no score.
const build = (form, data) => {
  const names = data.relevant.map((_, i) => String.fromCharCode(65 + i));
  let results, tied, k = data.k;
  const n = names.length;

  const scores = () => {
    let level = n;
    return tied.map((tie, place) => (level -= place && !tie ? 1 : 0) / n);
  };
  const presets = {
    "as in the chapter": () => [names.map((_, i) => data.relevant[i]), () => false],
    "all relevant first": () => [[...data.relevant].sort((a, b) => b - a), () => false],
    "all relevant last": () => [[...data.relevant].sort((a, b) => a - b), () => false],
    "all scores equal": () => [names.map((_, i) => data.relevant[i]), (place) => place > 0],
  };
  const set = (number) => {
    const [relevant, tie] = Object.values(presets)[number]();
    results = names.map((name, i) => ({ name, relevant: relevant[i] }));
    tied = names.map((_, i) => tie(i));
  };

  const preset = picker("Start from", Object.keys(presets), (number) => { set(number); show(); });
  const range = el("input", { type: "range", min: 1, max: n, step: 1, value: k,
    oninput: () => { k = Number(range.value); show(); } });
  const kText = el("span", {});
  const status = el("p", { role: "status", class: "heard" });
  const list = el("ol", { class: "ranking" });
  const numbers = el("div", { class: "numbers" });
  const steps = el("div", {});

  // Places stand still and show whatever result is on them.
  const places = names.map((_, place) => {
    const handle = el("span", { class: "handle", "aria-hidden": "true",
      onpointerdown: (event) => drag(event, place) }, "⠿");
    const text = el("span", {});
    const toggle = el("button", { type: "button", class: "mark", onclick: () => {
      results[place].relevant = !results[place].relevant;
      show(`Result ${results[place].name} is ${word(results[place])}.`);
    } });
    const step = (by, arrow) => el("button", { type: "button", onclick: () => {
      move(place, place + by);
      const to = places[place + by];
      const next = by < 0 ? to.up : to.down;
      (next.disabled ? (by < 0 ? to.down : to.up) : next).focus();
    } }, arrow);
    const up = step(-1, "↑"), down = step(1, "↓");
    const tie = el("input", { type: "checkbox", onchange: () => {
      tied[place] = tie.checked;
      show();
    } });
    const tieText = el("span", {});
    const label = el("label", { class: "tie line" }, tie, tieText);
    const node = el("li", {}, handle, el("div", {}, text),
      el("div", { class: "buttons" }, toggle, up, down), ...(place ? [label] : []));
    return { node, text, toggle, up, down, tie, tieText };
  });
  const word = (result) => (result.relevant ? "relevant" : "not relevant");

  const move = (from, to) => {
    results.splice(to, 0, ...results.splice(from, 1));
    show(`Result ${results[to].name} is on rank ${to + 1} of ${n}.`);
  };

  const drag = (event, place) => {
    if (event.button) return;
    event.preventDefault();
    let held = place;
    const hold = (to) => places.forEach(({ node }, i) => node.classList.toggle("held", i === to));
    const over = ({ clientY }) => {
      const below = places.findIndex(({ node }) => clientY < node.getBoundingClientRect().bottom);
      const to = below < 0 ? n - 1 : below;
      if (to !== held) move(held, to);
      held = to;
      hold(held);
    };
    const drop = () => {
      removeEventListener("pointermove", over);
      removeEventListener("pointerup", drop);
      removeEventListener("pointercancel", drop);
      hold(-1);
    };
    addEventListener("pointermove", over);
    addEventListener("pointerup", drop);
    addEventListener("pointercancel", drop);
    hold(held);
  };

  const sum = ({ among, value }, total) => {
    const terms = among.map(([part, whole]) => `${part}/${whole}`).join(" + ") || "0";
    return `(${terms}) / ${total} = ${three(value)}`;
  };
  const line = (name, value, text) => el("div", {}, el("strong", {}, name), " ",
    el("span", { class: "number", "data-number": name }, three(value)), el("br"),
    el("span", { class: "soft" }, text));

  const show = (said = "") => {
    const score = scores();
    const measured = measure(results.map((result) => result.relevant), score, k);
    const { total, ap, apInOrder, mapAtR, recall } = measured;
    places.forEach((one, place) => {
      const result = results[place];
      one.text.replaceChildren(`${place + 1}. `, el("strong", {}, result.name));
      one.toggle.textContent = result.relevant ? "✓ relevant" : "✗ not relevant";
      one.toggle.className = `mark ${result.relevant ? "right" : "wrong"}`;
      one.toggle.setAttribute("aria-label",
        `Result ${result.name}: ${result.relevant ? "✓ relevant" : "✗ not relevant"}`);
      one.up.disabled = place === 0;
      one.down.disabled = place === n - 1;
      one.up.setAttribute("aria-label", `↑ Move result ${result.name} up`);
      one.down.setAttribute("aria-label", `↓ Move result ${result.name} down`);
      one.tie.checked = tied[place];
      one.tieText.textContent = `same score as rank ${place} (this one: ${score[place].toFixed(1)})`;
    });
    kText.textContent = `k for recall: ${k}`;
    const none = "No result is relevant, so this number does not exist.";
    const worked = (text) => (total ? text : none);
    numbers.replaceChildren(
      line("AP, ties fair", ap.value, worked(sum(ap, total))),
      line("AP, ties in the order shown", apInOrder.value, worked(sum(apInOrder, total))),
      line("MAP@R", mapAtR.value, worked(`R = ${total}: ${sum(mapAtR, total)}`)),
      line("recall@k", recall.value,
        worked(`k = ${k}: ${recall.hits}/${total} = ${three(recall.value)}`)),
    );
    const share = ([part, whole], i) => (results[i].relevant ? `${part}/${whole}` : "–");
    steps.replaceChildren(table(
      "Precision at each rank: relevant results / all results. A fair precision counts all results with at least this score, also those below it in the list.",
      ["Rank", "Result", "Relevant", "Score", "Fair", "In order"],
      results.map((result, i) => [`${i + 1}`, result.name, result.relevant ? "✓ yes" : "✗ no",
        score[i].toFixed(1), share(measured.fair[i], i), share(measured.order[i], i)])));
    status.textContent = `${said} AP, ties fair: ${three(ap.value)}.`.trim();
  };

  list.append(...places.map(({ node }) => node));
  form.append(
    el("p", { class: "soft" }, "Ten results, A to J, best first. Drag one by its dots, or use the arrow buttons; mark results as relevant or not; give neighbours the same score."),
    el("div", { class: "controls" }, preset.node, el("label", {}, kText, range)),
    status, numbers, list,
    el("details", {}, el("summary", {}, "The steps, as a table"), steps),
  );
  set(0);
  show();
};
