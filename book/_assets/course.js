// Small repairs of what a screen reader is told.
(() => {
  // The theme's buttons: their label has to contain the text they show.
  const repairButtons = () => {
    for (const button of document.querySelectorAll(".search-button-field")) {
      button.removeAttribute("aria-label"); // it shows "Search" and the keys
    }
    const named = "button[aria-label], .search-button-field";
    for (const icon of document.querySelectorAll(`:is(${named}) > :is(i, svg)`)) {
      if (icon.getAttribute("aria-hidden") !== "true") icon.setAttribute("aria-hidden", "true");
      icon.removeAttribute("title");
      icon.querySelector("title")?.remove(); // what Font Awesome makes of a title attribute
    }
  };
  // The sidebar's arrows, which open the pages below a page, show a picture only.
  const nameArrows = () => {
    for (const arrow of document.querySelectorAll("summary:not([aria-label])")) {
      const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
      if (!arrow.textContent.trim()) arrow.setAttribute("aria-label", `Pages below ${page ?? ""}`);
    }
  };
  // Sliders of ipywidgets have no name: give them their label's text.
  const nameSliders = () => {
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label");
      handle.setAttribute("aria-label", label?.textContent.trim() || "Slider");
    }
  };
  document.addEventListener("DOMContentLoaded", () => {
    nameArrows();
    repairButtons();
    // Font Awesome turns icons into drawings sooner or later than this, as the machine is busy.
    new MutationObserver(repairButtons).observe(document.body, { childList: true, subtree: true });
    if (!document.querySelector('script[type^="application/vnd.jupyter.widget"]')) return;
    new MutationObserver(nameSliders).observe(document.body, { childList: true, subtree: true });
    nameSliders();
  });
})();
