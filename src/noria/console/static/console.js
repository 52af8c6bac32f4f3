/* What the browser does on its own: marks the page one is on, and opens links of untrusted text elsewhere. */
"use strict";
function markNavigation() {
  const here = location.pathname;
  for (const link of document.querySelectorAll(".nav-link")) {
    const path = link.getAttribute("data-path");
    const on = path === "/" ? here === "/" : here === path || here.startsWith(path + "/");
    link.classList.toggle("on", on);
    if (on) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
for (const name of ["pushState", "replaceState"]) {
  const original = history[name];
  history[name] = function (...given) {
    const result = original.apply(this, given);
    setTimeout(markNavigation);
    return result;
  };
}
window.addEventListener("popstate", () => setTimeout(markNavigation));
new MutationObserver((changes, observer) => {
  if (document.querySelector(".nav-link")) {
    observer.disconnect();
    markNavigation();
  }
}).observe(document.documentElement, { childList: true, subtree: true });
document.addEventListener(
  "click",
  (event) => {
    const link = event.target.closest && event.target.closest(".prose a[href]");
    if (!link || link.dataset.cite) return;
    event.preventDefault();
    event.stopPropagation();
    if (/^https?:\/\//i.test(link.getAttribute("href"))) window.open(link.href, "_blank", "noopener,noreferrer");
  },
  true,
);
