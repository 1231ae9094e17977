// The network itself, run by onnxruntime-web on the reader's machine. A picture goes nowhere else.
const build = (form, data) => {
  const gallery = new Float32Array(bytes(data.gallery.embeddings).buffer);
  const n = data.attributes.length;
  const size = data.size;
  const canvas = el("canvas", { width: size, height: size });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let run = null, attribute = 0, answers = null, name = "", turn = 0, queue = Promise.resolve();

  const status = el("p", { role: "status" });
  const result = el("div", {});
  const say = (text) => { status.textContent = text; };

  // The folder of onnxruntime-web in the built book, or the one that the page names.
  const home = () => document.documentElement.dataset.onnxruntime
    || new URL(`${document.documentElement.dataset.content_root || "./"}_static/vendor/onnxruntime-web/`, location.href).href;

  const begin = async () => {
    if (!data.model) {
      say("This page was made without the package onnx, so the network is not in it: open it in the built book.");
      return;
    }
    starter.disabled = true;
    say("Fetching the machinery that runs networks, 14 MB from this site …");
    try {
      const ort = await import(`${home()}ort.wasm.min.mjs`);
      ort.env.wasm.wasmPaths = home();
      ort.env.wasm.numThreads = 1;
      const session = await ort.InferenceSession.create(bytes(data.model));
      const ids = new ort.Tensor("int64", BigInt64Array.from({ length: n }, (_, i) => BigInt(i)), [1, n]);
      run = (pixels) => session.run({ images: new ort.Tensor("uint8", pixels, [1, 3, size, size]), attributes: ids });
      starter.hidden = true;
      await look(turn);
    } catch (error) {
      starter.disabled = false;
      say("The network cannot run here: this page needs onnxruntime-web beside it, which `make vendor` fetches "
        + "before `make book`, and it must be opened through `make serve`, not as a file. Every other page works without it.");
    }
  };

  // The colours of the picture, one after the other, as the exported network takes them.
  const pixels = () => {
    const rgba = context.getImageData(0, 0, size, size).data;
    const planes = new Uint8Array(3 * size * size);
    for (let i = 0; i < size * size; i++) for (let c = 0; c < 3; c++) planes[c * size * size + i] = rgba[4 * i + c];
    return planes;
  };

  // One run after the other, and only for the newest picture.
  const look = (mine) => (queue = queue.then(async () => {
    if (!run || mine !== turn) return;
    const { embeddings, attention } = await run(pixels());
    if (mine !== turn) return;
    answers = { embeddings: embeddings.data, attention: attention.data, height: attention.dims[2], width: attention.dims[3] };
    form.answers = answers;
    show();
  }));

  const show = () => {
    if (!answers) return;
    const { height, width } = answers;
    const cells = height * width;
    const dim = answers.embeddings.length / n;
    const own = answers.attention.subarray(attribute * cells, (attribute + 1) * cells);
    const top = Math.max(...own);
    const values = Uint8Array.from(own, (weight) => Math.round(255 * weight / top));
    const near = data.gallery.pictures.map((picture, i) => {
      let score = 0;
      for (let d = 0; d < dim; d++) {
        score += answers.embeddings[attribute * dim + d] * gallery[(i * n + attribute) * dim + d];
      }
      return { picture, score, value: data.gallery.values[i][attribute] };
    }).filter(({ value }) => value !== null).sort((a, b) => b.score - a.score).slice(0, data.top);
    const cell = own.indexOf(top);
    const row = ["top", "middle", "bottom"][Math.floor(3 * (Math.floor(cell / width) + 0.5) / height)];
    const column = ["left", "centre", "right"][Math.floor(3 * ((cell % width) + 0.5) / width)];
    result.replaceChildren(
      el("div", { class: "query" },
        overlaid(canvas.toDataURL(), `${name}, under the attention map`, { height, width, values }, 0, null, 0.6),
        el("p", {}, `For ${data.attributes[attribute]}, the network looks most at the ${row} ${column}.`)),
      el("p", {}, `Nearest of the garments in the gallery that have a ${data.attributes[attribute]}:`),
      el("ol", { class: "results live" }, ...near.map(({ picture: [src, alt], score, value }) =>
        el("li", {}, el("img", { src, alt }), el("span", {}, value), el("span", { class: "soft" }, three(score))))));
    say(`${name}: nearest by ${data.attributes[attribute]} are ${near.slice(0, 3).map(({ value }) => value).join(", ")}.`);
  };

  const load = async (source, called) => {
    const mine = ++turn;
    const image = new Image();
    image.src = source;
    try {
      await image.decode();
    } catch (error) {
      say(`${called} is not a picture that this browser can read; choose a JPEG or PNG file.`);
      return;
    }
    if (mine !== turn) return; // another picture came meanwhile
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // behind what is transparent
    context.fillRect(0, 0, size, size);
    const side = Math.min(image.naturalWidth, image.naturalHeight); // the middle square
    const [left, top] = [image.naturalWidth - side, image.naturalHeight - side].map((more) => Math.floor(more / 2));
    context.drawImage(image, left, top, side, side, 0, 0, size, size);
    name = called;
    await look(mine);
  };

  const chosen = data.choices.map(() => 0);
  const redraw = () => {
    const number = data.choices.reduce((sum, choice, i) => sum * choice.values.length + chosen[i], 0);
    const called = data.choices.map((choice, i) => `${choice.name} ${choice.values[chosen[i]]}`).join(", ");
    return load(data.drawings[number], `Drawn dress: ${called}`);
  };
  const photo = async (file) => {
    if (!file) return;
    const address = URL.createObjectURL(file);
    await load(address, file.name);
    URL.revokeObjectURL(address);
  };
  const file = el("input", { type: "file", accept: "image/*", onchange: () => photo(file.files[0]) });
  const asked = picker("Attribute asked", data.attributes, (number) => {
    attribute = number;
    show();
  });
  const starter = el("button", { type: "button", onclick: begin }, "Start the network");
  form.append(
    el("div", { class: "controls" },
      ...data.choices.map((choice, i) => picker(choice.name, choice.values, (number) => {
        chosen[i] = number;
        redraw();
      }).node),
      asked.node),
    el("div", { class: "controls", ondragover: (event) => event.preventDefault(),
      ondrop: (event) => { event.preventDefault(); photo(event.dataTransfer.files[0]); } },
      canvas, el("label", {}, el("span", {}, "or a photo of yours, chosen or dropped here; it stays on this machine"), file)),
    starter, status, result);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "The picture that the network sees");
  redraw();
};
