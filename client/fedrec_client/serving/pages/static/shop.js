// The list glides into its new order and says what has changed; the switch; the dialog of reasons.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const isCalm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let before = null;

  const cards = () => [...document.querySelectorAll("#cards > .card")];

  function remember() {
    const places = new Map();
    cards().forEach((card, place) => places.set(card.dataset.item, { place, box: card.getBoundingClientRect() }));
    const inside = document.activeElement && document.activeElement.closest("#cards > .card");
    before = { places, focus: inside ? cards().indexOf(inside) : -1 };
  }

  function glide(card, was) {
    if (isCalm()) return;
    if (!was) {
      card.animate([{ opacity: 0, transform: "translateY(10px)" }, { opacity: 1, transform: "none" }],
        { duration: 420, easing: "ease-out" });
      return;
    }
    const now = card.getBoundingClientRect();
    const x = was.box.left - now.left, y = was.box.top - now.top;
    if (x || y) {
      card.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }],
        { duration: 380, easing: "cubic-bezier(.2, .7, .2, 1)" });
    }
  }

  function tellWhatChanged(section) {
    const fresh = cards();
    let added = 0, moved = 0;
    fresh.forEach((card, place) => {
      const was = before.places.get(card.dataset.item);
      if (!was) added += 1;
      else if (was.place !== place) moved += 1;
      glide(card, was);
    });
    const parts = [added ? `${added} new` : "", moved ? `${moved} moved` : ""].filter(Boolean).join(", ") || "no change";
    const words = `${section.dataset.said}. Your list: ${parts}, in ${section.dataset.took} ms.`;
    byId("changed").textContent = words;
    byId("said").textContent = words;
    if (before.focus >= 0 && fresh.length) {
      fresh[Math.min(before.focus, fresh.length - 1)].querySelector(".watch").focus({ preventScroll: true });
    }
  }

  // Heard by screen readers; it must be there before it says something.
  const said = document.createElement("p");
  said.id = "said";
  said.className = "hidden";
  said.setAttribute("role", "status");
  document.body.append(said);

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === "for-you") remember();
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "deeds") byId("said").textContent = byId("deeds").dataset.said;
    if (event.detail.target.id !== "for-you" || !before) return;
    const section = byId("for-you");
    if (section.dataset.said) tellWhatChanged(section);
    before = null;
  });

  // More: the focus goes to the first card that came.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.id === "more-button") before = { count: cards().length };
    if (event.detail.elt.classList.contains("why")) openReasons(event.detail.elt);
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target.id === "cards" && before && before.count !== undefined) {
      const first = cards()[before.count];
      if (first) first.querySelector("a").focus({ preventScroll: true });
      byId("said").textContent = `${cards().length - before.count} more.`;
      before = null;
    }
  });

  function openReasons(button) {
    const title = button.closest(".card").querySelector(".title").textContent;
    const body = byId("why-body");
    body.replaceChildren();
    const heading = document.createElement("h2");
    heading.id = "why-title";
    heading.textContent = `Why ${title}?`;
    const waiting = document.createElement("p");
    waiting.className = "muted";
    waiting.textContent = "Asking the model again without what you saw …";
    body.append(heading, waiting);
    byId("why").showModal();
  }

  // The switch: what stays is what was clicked since this page was loaded; what goes is what the browser saw go.
  const toggle = byId("switch");
  toggle.addEventListener("click", () => {
    const isOn = toggle.getAttribute("aria-checked") !== "true";
    toggle.setAttribute("aria-checked", String(isOn));
    byId("leaves").hidden = !isOn;
    count();
  });

  // Browsers hide the size of what other places answer, so each request counts as a byte at least.
  function bytesElsewhere() {
    return performance.getEntriesByType("resource")
      .filter((one) => new URL(one.name).origin !== location.origin)
      .reduce((sum, one) => sum + 1 + (one.transferSize || 0), 0);
  }

  function count() {
    const n = byId("stayed").children.length, bytes = bytesElsewhere();
    byId("n-stayed").textContent = String(n);
    byId("events-word").textContent = n === 1 ? "event" : "events";
    byId("bytes-gone").textContent = String(bytes);
    byId("strip").textContent = `${n} ${n === 1 ? "event stays" : "events stay"}, ${bytes} bytes leave`;
  }

  document.addEventListener("htmx:oobAfterSwap", count);
  document.addEventListener("htmx:afterSettle", count);
})();
