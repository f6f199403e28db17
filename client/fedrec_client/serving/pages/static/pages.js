// Words for what was done and for what fails. No inline code: the policy forbids it.
(() => {
  "use strict";

  function say(words, isWrong) {
    const notice = document.getElementById("notice");
    if (!notice) return;
    notice.classList.toggle("wrong", isWrong);
    notice.textContent = words;
  }

  document.addEventListener("htmx:afterSwap", (event) => {
    const place = event.detail.target && event.detail.target.id && document.getElementById(event.detail.target.id);
    // What the shop says stands in its own pages: shop.js.
    if (place && ["rules", "keys", "review", "support"].includes(place.id)) say(place.dataset.said, false);
  });
  document.addEventListener("htmx:responseError", (event) => {
    let words = `The service answers ${event.detail.xhr.status}.`;
    try {
      const told = JSON.parse(event.detail.xhr.responseText);
      words = [told.detail || told.title, ...(told.errors || []).map((one) => one.problem), told.remedy]
        .filter(Boolean).join("; ");
    } catch { /* not ours: the status has to do */ }
    say(words, true);
  });
  document.addEventListener("htmx:sendError", () => say("The service does not answer. Trying again helps, perhaps.", true));
  document.addEventListener("htmx:afterRequest", (event) => {
    const notice = document.getElementById("notice");
    if (event.detail.successful && notice.classList.contains("wrong")) say("", false);
  });
  window.fedrec = { say };
})();
