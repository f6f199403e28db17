// Plots of committed rounds, words for what fails, and focus that survives a refresh. No inline code: the policy forbids it.
(() => {
  "use strict";
  const plots = new Map();

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function say(words, isWrong) {
    const notice = document.getElementById("notice");
    if (!notice) return;
    notice.classList.toggle("wrong", isWrong);
    notice.textContent = words;
  }

  function option(rounds, lines) {
    const muted = css("--muted"), rule = css("--rule"), card = css("--card"), ink = css("--ink");
    return {
      animation: false,
      color: [css("--blue"), css("--orange")],
      grid: { left: 56, right: 16, top: 28, bottom: 34 },
      // Rich text, since the policy forbids the style attributes of the other kind.
      tooltip: { trigger: "axis", renderMode: "richText", backgroundColor: card, borderColor: rule,
        textStyle: { color: ink } },
      xAxis: { type: "category", data: rounds, name: "round", nameLocation: "middle", nameGap: 22,
        nameTextStyle: { color: muted }, axisLabel: { color: muted }, axisLine: { lineStyle: { color: rule } } },
      yAxis: { type: "value", scale: true, axisLabel: { color: muted }, splitLine: { lineStyle: { color: rule } } },
      series: lines.map((line, number) => ({ type: "line", name: line.name, data: line.values, symbolSize: 6,
        lineStyle: { type: number ? "dashed" : "solid" }, connectNulls: true })),
    };
  }

  const KINDS = {
    quality: (s) => [
      { name: "HR@10", values: s.map((r) => (r.quality ? r.quality.hit_ratio : null)) },
      { name: "NDCG@10", values: s.map((r) => (r.quality ? r.quality.ndcg : null)) },
    ],
    epsilon: (s) => [{ name: "epsilon", values: s.map((r) => r.epsilon) }],
    seconds: (s) => [{ name: "seconds", values: s.map((r) => Number(r.seconds.toFixed(2))) }],
    step: (s) => [{ name: "norm of the step", values: s.map((r) => r.step_norm) }],
  };

  function draw() {
    const holder = document.getElementById("series");
    if (!holder || !window.echarts) return;
    const series = JSON.parse(holder.dataset.series);
    for (const [kind, lines] of Object.entries(KINDS)) {
      const place = document.getElementById(`plot-${kind}`);
      if (!place) continue;
      const found = lines(series);
      const isEmpty = found.every((line) => line.values.every((value) => value === null));
      place.closest("figure").querySelector(".none").hidden = !isEmpty;
      place.hidden = isEmpty;
      if (isEmpty) continue;
      if (!plots.has(kind)) plots.set(kind, window.echarts.init(place));
      const plot = plots.get(kind);
      plot.resize();
      plot.setOption(option(series.map((r) => r.round), found), true);
    }
  }

  document.addEventListener("htmx:afterSwap", draw);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("htmx:responseError", (event) => {
    let words = `The coordinator answers ${event.detail.xhr.status}.`;
    try {
      const told = JSON.parse(event.detail.xhr.responseText);
      words = told.remedy ? `${told.error}: ${told.remedy}` : told.error;
    } catch { /* not ours: the status has to do */ }
    say(words, true);
  });
  document.addEventListener("htmx:sendError", () => say("The coordinator does not answer. Trying again.", true));
  document.addEventListener("htmx:afterOnLoad", (event) => {
    const notice = document.getElementById("notice");
    const isPoll = event.detail.requestConfig && event.detail.requestConfig.verb === "get";
    if (isPoll && notice && notice.textContent.startsWith("The coordinator does not answer")) say("", false);
  });
})();
