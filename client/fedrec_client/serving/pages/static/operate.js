// Charts of the figures that come with every refresh.
(() => {
  "use strict";
  const plots = new Map();
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);

  function shared(isTime) {
    const muted = css("--muted"), rule = css("--rule");
    return {
      animation: false,
      color: [css("--blue"), css("--orange"), css("--green"), css("--purple")],
      grid: { left: isTime ? 44 : 84, right: 12, top: 12, bottom: 26 },
      // Rich text, since the policy forbids the style attributes of the other kind.
      tooltip: { trigger: "axis", renderMode: "richText", backgroundColor: css("--card"), borderColor: rule,
        textStyle: { color: css("--ink") } },
      textStyle: { color: muted },
      muted, rule,
    };
  }

  function overTime(figures, lines, type) {
    const base = shared(true);
    return { ...base,
      xAxis: { type: "category", data: figures.series.at.map(clock), axisLabel: { color: base.muted, interval: 11 },
        axisTick: { show: false }, axisLine: { lineStyle: { color: base.rule } } },
      yAxis: { type: "value", min: 0, splitNumber: 3, axisLabel: { color: base.muted },
        splitLine: { lineStyle: { color: base.rule } } },
      series: lines.map((line, number) => ({ type, name: line.name, data: line.values, symbol: "circle", symbolSize: 4,
        showSymbol: type === "line" && line.values.filter((one) => one !== null).length < 20, connectNulls: true,
        barMaxWidth: 6, areaStyle: line.isFilled ? { opacity: .12 } : undefined,
        lineStyle: { width: 2, type: number ? "dashed" : "solid" } })) };
  }

  function bySource(figures) {
    const base = shared(false), names = Object.keys(figures.sources).reverse();
    return { ...base,
      xAxis: { type: "value", splitNumber: 4, axisLabel: { color: base.muted }, splitLine: { lineStyle: { color: base.rule } } },
      yAxis: { type: "category", data: names, axisLabel: { color: base.muted }, axisTick: { show: false },
        axisLine: { lineStyle: { color: base.rule } } },
      series: [{ type: "bar", name: "items", data: names.map((name) => figures.sources[name]), barMaxWidth: 18 }] };
  }

  function byWindow(figures) {
    const base = shared(true), told = figures.windows, percent = (share) => `${Math.round(100 * share)} %`;
    const level = (name, share, colour) => ({ type: "line", name, data: told.map(() => share), symbol: "none",
      lineStyle: { width: 1.5, type: "dashed", color: css(colour) }, itemStyle: { color: css(colour) } });
    const bars = told.map((one) => ({ value: one.negative_share,
      itemStyle: { color: css(one.has_alarm ? "--orange" : "--blue") } }));
    return { ...base,
      tooltip: { ...base.tooltip, valueFormatter: percent },
      xAxis: { type: "category", data: told.map((one) => new Date(one.ended * 1000).toISOString().slice(11, 19)),
        axisLabel: { color: base.muted }, axisTick: { show: false }, axisLine: { lineStyle: { color: base.rule } } },
      yAxis: { type: "value", min: 0, max: 1, interval: .25, axisLabel: { color: base.muted, formatter: percent },
        splitLine: { lineStyle: { color: base.rule } } },
      series: [{ type: "bar", name: "negative", data: bars, barMaxWidth: 24 },
        level("usual", figures.base, "--muted"), level("to be found", figures.raised, "--purple")] };
  }

  const KINDS = {
    negative: [(f) => f.windows.length > 0, byWindow],
    requests: [(f) => f.series.requests_per_s.some(Boolean),
      (f) => overTime(f, [{ name: "requests per second", values: f.series.requests_per_s, isFilled: true }], "line")],
    latency: [(f) => f.series.p50_ms.some((one) => one !== null),
      (f) => overTime(f, [{ name: "median", values: f.series.p50_ms }, { name: "95th percentile", values: f.series.p95_ms }], "line")],
    events: [(f) => f.series.events.some(Boolean),
      (f) => overTime(f, [{ name: "events", values: f.series.events }], "bar")],
    sources: [(f) => Object.keys(f.sources).length > 0, bySource],
  };

  function draw() {
    const holder = document.getElementById("figures");
    if (!holder || !window.echarts) return;
    const figures = JSON.parse(holder.dataset.figures);
    for (const [kind, [hasSome, option]] of Object.entries(KINDS)) {
      const place = document.getElementById(`plot-${kind}`);
      if (!place) continue;
      const isEmpty = !hasSome(figures);
      place.closest("figure").querySelector(".none").hidden = !isEmpty;
      place.hidden = isEmpty;
      if (isEmpty) continue;
      if (!plots.has(kind)) plots.set(kind, window.echarts.init(place));
      plots.get(kind).resize();
      plots.get(kind).setOption(option(figures), true);
    }
  }

  document.addEventListener("DOMContentLoaded", draw);
  document.addEventListener("htmx:afterSwap", draw);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
