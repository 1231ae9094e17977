// Widget fonts are looked up beside the widget bundle, from the page's own site.
require.config({
  baseUrl: new URL(
    (document.documentElement.dataset.content_root || "./") + "_static/vendor/",
    location.href,
  ).href,
});
// The widget bundle calls MathJax 2's queue; the page has MathJax 3.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax && !window.MathJax.Hub) {
    window.MathJax.Hub = {
      Queue: (job) =>
        job &&
        job[2] &&
        window.MathJax.typesetPromise &&
        window.MathJax.typesetPromise([].concat(job[2])),
    };
  }
});
