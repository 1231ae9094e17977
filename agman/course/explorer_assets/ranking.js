// The numbers of one ranking, worked out as agman.metrics works them out.
// `relevant` and `scores` are best first; of equal scores the one that stands first counts first,
// but for the fair average precision. `among` pairs relevant items with items: a precision.
const measure = (relevant, scores, k) => {
  const ranks = relevant.map((_, i) => i);
  const count = (wanted) => ranks.filter((i) => relevant[i] && wanted(i)).length;
  const fair = ranks.map((i) => [
    count((j) => scores[j] >= scores[i]),
    scores.filter((score) => score >= scores[i]).length,
  ]);
  const order = ranks.map((i) => [count((j) => j <= i), i + 1]);
  const total = count(() => true);
  const mean = (among) =>
    total ? among.reduce((sum, [part, whole]) => sum + part / whole, 0) / total : null;
  const hits = ranks.filter((i) => relevant[i]);
  const near = hits.filter((i) => i < total);
  return {
    total, fair, order,
    ap: { among: hits.map((i) => fair[i]), value: mean(hits.map((i) => fair[i])) },
    apInOrder: { among: hits.map((i) => order[i]), value: mean(hits.map((i) => order[i])) },
    mapAtR: { among: near.map((i) => order[i]), value: mean(near.map((i) => order[i])) },
    recall: { hits: count((i) => i < k), value: total ? count((i) => i < k) / total : null },
  };
};
